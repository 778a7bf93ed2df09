"""A child process: ``child.py MODULE FUNCTION KEYWORDS``, see `harness.protocol`.

MODULE is one of `peers`, and KEYWORDS is JSON. Nothing is imported here that a peer might want to
import later: `runtime.tune` acts before NumPy is loaded.
"""

import ctypes
import importlib
import json
import signal
import sys

from harness.protocol import private_stdout, serve

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the peer that the command line names; end with the parent, even while stopped."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    module, function, keywords = sys.argv[1:]
    out = private_stdout()
    serve(
        lambda: getattr(importlib.import_module(module), function)(**json.loads(keywords)),
        sys.stdin,
        out,
    )


if __name__ == "__main__":
    main()
