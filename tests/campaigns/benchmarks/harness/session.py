"""Starting all peers of a benchmark, one after another, with a first request to each."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .process import Peer, PeerFailed
from .report import Report
from .rounds import Turn


class Spec(NamedTuple):
    """How to make a peer: a function of a module of `peers`, and its keywords."""

    module: str
    function: str
    keywords: dict[str, Any] = {}  # noqa: RUF012  # never written


class Started(NamedTuple):
    """A peer that has answered its first request, and is stopped."""

    peer: Peer
    answer: dict[str, Any]


@contextlib.contextmanager
def started(
    specs: Mapping[str, Spec], report: Report, request: dict[str, Any], **keywords: Any
) -> Iterator[dict[str, Started]]:
    """Start the peers, and end them all at the end.

    A peer that fails is left out, and the report says why: a framework may not be installed, and a
    compiler not be there. The library itself must not fail.

    Args:
        specs: by name.
        report: gets what each peer says it is, and what is missing.
        request: the first for each, such as the steps whose losses are compared.
        **keywords: for all peers.
    """
    with contextlib.ExitStack() as stack:
        result = {}
        for name, (module, function, own) in specs.items():
            say(f"{name} starts")
            try:
                peer = stack.enter_context(Peer(name, module, function, **own, **keywords))
                answer = peer.ask(**request)
            except PeerFailed as failure:
                if name.startswith("ours"):
                    raise
                say(str(failure))
                report.missing[name] = str(failure).splitlines()[-1]
                continue
            peer.pause()
            report.peers[name] = peer.about
            result[name] = Started(peer, answer)
        yield result


def progress(group: str, turn: Turn) -> None:
    """Say how a turn went."""
    what = turn.disturbance
    busy = f"  disturbed: others {what.others:.0%}, stolen {what.stolen:.0%}" if what.busy else ""
    say(
        f"{group} {turn.round + 1:3} {turn.peer:20} {turn.value * 1e3:9.2f} ms"
        f"  load {what.load:.1f}{busy}"
    )


def say(line: str) -> None:
    """Write to stderr."""
    print(line, file=sys.stderr, flush=True)
