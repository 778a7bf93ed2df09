"""A child process: ``child.py MODULE FUNCTION KEYWORDS``.

The function, called with the keywords (JSON), returns what the peer is and a function that answers
requests: one line of JSON each, on stdin and stdout. What libraries print goes to stderr. Nothing
is imported here that a peer might import later: `runtime.tune` acts before NumPy is loaded.
"""

import ctypes
import importlib
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until stdin ends; end with the parent, even while stopped."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    module, function, keywords = sys.argv[1:]
    about, answer = getattr(importlib.import_module(module), function)(**json.loads(keywords))
    print(json.dumps(about), file=out)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=out)


if __name__ == "__main__":
    main()
