"""Peers by turns: a few steps of each in every round, so that slow minutes of the machine hit all.

Only the peer whose turn it is runs; the others are stopped. The order rotates from round to round,
so that nobody always follows the same neighbour. A turn in which other processes, or other
machines on the same hardware, took more than `machine.BUSY` of the time is disturbed, and left out
of the figures, unless a peer has fewer than three others.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from . import machine
from .process import Peer

QUIET_TURNS = 3
PAUSE = 0.05
"""Seconds for the machine to settle between turns."""


class Turn(NamedTuple):
    """One peer's part of a round."""

    peer: str
    round: int
    seconds: list[float]  # of each step
    disturbance: machine.Disturbance

    @property
    def value(self) -> float:
        """The median step of the turn."""
        return statistics.median(self.seconds)


def alternate(
    peers: Sequence[Peer],
    *,
    rounds: int,
    request: Callable[[Peer], dict[str, Any]],
    report: Callable[[Turn], None] = lambda turn: None,
) -> list[Turn]:
    """Let the peers take turns.

    Args:
        peers: resumed one at a time.
        rounds: how many turns each gets.
        request: what to ask a peer for in its turn, such as ``{"do": "steps", "n": 5}``; the
            answer must have "seconds", a list.
        report: is told of each turn.
    """
    turns = []
    for peer in peers:
        peer.pause()
    try:
        for number in range(rounds):
            first = number % len(peers)
            for peer in [*peers[first:], *peers[:first]]:
                turns.append(_turn(peer, number, request(peer)))
                report(turns[-1])
    finally:
        for peer in peers:
            peer.resume()
    return turns


def _turn(peer: Peer, number: int, request: dict[str, Any]) -> Turn:
    time.sleep(PAUSE)
    peer.resume()
    own, before = peer.cpu_seconds(), machine.usage()
    answer = peer.ask(**request)
    after, own = machine.usage(), peer.cpu_seconds() - own
    peer.pause()
    return Turn(peer.name, number, answer["seconds"], machine.disturbance(before, after, own))


def undisturbed(turns: Iterable[Turn]) -> tuple[dict[str, list[Turn]], dict[str, int]]:
    """Return the turns of each peer that count, and how many were left out.

    A peer with fewer than `QUIET_TURNS` quiet turns keeps them all, and −1 is said to be left out.
    """
    every: dict[str, list[Turn]] = {}
    for turn in turns:
        every.setdefault(turn.peer, []).append(turn)
    kept, left_out = {}, {}
    for name, own in every.items():
        quiet = [turn for turn in own if not turn.disturbance.busy]
        enough = len(quiet) >= min(QUIET_TURNS, len(own))
        kept[name] = quiet if enough else own
        left_out[name] = len(own) - len(quiet) if enough else -1
    return kept, left_out
