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


class Runner(NamedTuple):
    """Something to take turns: a peer and what to ask of it; several may share a peer."""

    name: str
    peer: Peer
    request: dict[str, Any]  # the answer must have "seconds", a list


class Turn(NamedTuple):
    """One runner's part of a round."""

    peer: str  # the runner's name
    round: int
    seconds: list[float]  # of each step
    disturbance: machine.Disturbance

    @property
    def value(self) -> float:
        """The median step of the turn."""
        return statistics.median(self.seconds)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        busy = {"busy": self.disturbance.busy}
        return {**self._asdict(), "disturbance": self.disturbance._asdict() | busy}


def alternate(
    runners: Sequence[Runner],
    *,
    rounds: int,
    skip: int = 0,
    patience: float = 0.0,
    report: Callable[[Turn], None] = lambda turn: None,
) -> list[Turn]:
    """Let the runners take turns.

    Args:
        runners: their peers are resumed one at a time.
        rounds: how many turns each gets.
        skip: how many steps at the beginning of a turn warm the caches and do not count.
        patience: how many seconds a turn waits at most for others to leave the machine alone.
        report: is told of each turn.
    """
    turns = []
    peers = {id(runner.peer): runner.peer for runner in runners}.values()
    for peer in peers:
        peer.pause()
    try:
        for number in range(rounds):
            first = number % len(runners)
            for runner in [*runners[first:], *runners[:first]]:
                machine.wait_until_quiet(patience)
                turns.append(_turn(runner, number, skip))
                report(turns[-1])
    finally:
        for peer in peers:
            peer.resume()
    return turns


def _turn(runner: Runner, number: int, skip: int) -> Turn:
    peer = runner.peer
    time.sleep(PAUSE)
    peer.resume()
    own, before = peer.cpu_seconds(), machine.usage()
    answer = peer.ask(**runner.request)
    after, own = machine.usage(), peer.cpu_seconds() - own
    peer.pause()
    what = machine.disturbance(before, after, own)
    return Turn(runner.name, number, answer["seconds"][skip:], what)


class Quiet(NamedTuple):
    """The turns that count, by runner."""

    turns: dict[str, list[Turn]]
    notes: dict[str, str]  # what a reader must know of them
    disturbed: frozenset[str]  # runners with too few quiet turns, whose figures prove nothing

    @property
    def values(self) -> dict[str, dict[int, float]]:
        """The median step of each turn, by runner and round."""
        return {name: {turn.round: turn.value for turn in own} for name, own in self.turns.items()}

    def seconds(self, name: str) -> list[float]:
        """Return all steps of a runner."""
        return [seconds for turn in self.turns[name] for seconds in turn.seconds]


def undisturbed(turns: Iterable[Turn]) -> Quiet:
    """Leave out the turns that were disturbed, except of a runner with too few others."""
    every: dict[str, list[Turn]] = {}
    for turn in turns:
        every.setdefault(turn.peer, []).append(turn)
    kept, notes, disturbed = {}, {}, set()
    for name, own in every.items():
        quiet = [turn for turn in own if not turn.disturbance.busy]
        lost = len(own) - len(quiet)
        if len(quiet) >= min(QUIET_TURNS, len(own)):
            kept[name] = quiet
            notes[name] = f"without {lost} disturbed of {len(own)} turns" if lost else ""
        else:
            kept[name] = own
            notes[name] = f"{lost} of {len(own)} turns DISTURBED"
            disturbed.add(name)
    return Quiet(kept, notes, frozenset(disturbed))
