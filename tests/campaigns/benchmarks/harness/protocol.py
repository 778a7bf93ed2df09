"""The child's side: requests and answers, a line of JSON each, on stdin and stdout.

    {"do": "steps", "n": 5}
    {"seconds": [0.021, ...], "losses": [4.17, ...]}

The first answer comes unasked, when the peer is ready: it says what the peer is. Between requests
the child waits for a line and does nothing. What libraries print goes to stderr.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

Actions = dict[str, Callable[..., dict[str, Any]]]


def serve(
    make: Callable[[], tuple[dict[str, Any], Actions]], requests: TextIO, out: TextIO
) -> None:
    """Make a peer, and carry out requests until there are no more.

    Args:
        make: returns what the peer is, and its actions by name.
        requests: lines of JSON; "do" names the action, the rest are its keywords.
        out: for the answers.
    """

    def answer(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    about, actions = make()
    answer(about)
    for line in requests:
        request = json.loads(line)
        answer(actions[request.pop("do")](**request))


def private_stdout() -> TextIO:
    """Return stdout for the answers alone: all that is printed from now on goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return out
