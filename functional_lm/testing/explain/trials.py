"""Signatures of what a backward reads: trials of other values, and of parts of a loop cut off.

Each trial is one row of `network.Network.pull`, so that thousands of them take a moment.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array
from ..oracle import JaxOracle
from .evidence import Cause, Evidence, leaf_of
from .factors import FUNCTIONS
from .network import CHUNK, Edge, Jacobians, jacobians_of

__all__ = ["g_elsewhere", "keyword_elsewhere", "read_elsewhere"]

NEARLY = 1e-3
"""What a trial may leave of an error: constants such as an eps may differ a little."""

MOST_TRIED = 6_000_000
"""Entries of all edges together, over all trials of what is read."""

SUMS = 2
"""Sums beside which a mistake is looked for."""

LINEAR = {"add", "sub", "neg", "reduce_sum", "broadcast_in_dim", "reshape", "transpose", "squeeze"}
LINEAR |= {"concatenate", "slice", "select_n", "stack", "copy", "convert_element_type", "pad"}
LINEAR |= {"output", "gather", "cumsum", "rev", "expand_dims", "add_any", "while", "cond", "scan"}
"""Operations whose derivative does not depend on their floating operands, or is not taken apart."""


def read_elsewhere(evidence: Evidence, only: str = "") -> Cause | None:
    """The backward reads another value than forward used, at one operand or wherever it is used.

    With ``only``, nothing but trials of that cause are made.
    """
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    most = MOST_TRIED // here.network.size
    concerned = _concerned(here, evidence.path)
    trials = list(itertools.islice(_trials(here, concerned), most))
    chosen = {i: trial for i, trial in enumerate(trials) if only in ("", trial.cause[0])}
    sums = [edge for edge in concerned if edge.step.name == "reduce_sum"][:SUMS]
    if only or len(trials) >= most:
        sums = []
    for beside in (None, *sums):
        left = dict.fromkeys(chosen, 0.0)
        for draw in range(min(3, len(evidence.comparisons))):
            there = trials
            if draw:
                again = _trials(jacobians_of(evidence.examination, draw), concerned)
                there = list(itertools.islice(again, most)) if left else []
            left = {
                i: max(left[i], rest)
                for i, rest in _rests(evidence, draw, {i: there[i] for i in left}, beside)
                if rest < NEARLY  # of the error, at each draw
            }
        if left:
            exact = [i for i, rest in left.items() if rest < 1e-6]
            cause, text = trials[min(exact) if exact else min(left, key=lambda i: left[i])].cause
            return cause, text + (f"; what goes through {beside} is right" if beside else "")
    return None


class Trial(NamedTuple):
    """What to read at some edges, and what it would mean."""

    cause: Cause
    reads: list[tuple[Edge, Array]]
    anew: bool = False  # whether what follows is computed with it, too
    cut: tuple[Edge, ...] = ()  # edges without a cotangent


def _rests(
    evidence: Evidence, draw: int, trials: dict[int, Trial], beside: Edge | None
) -> Iterator[tuple[int, float]]:
    """Yield what each trial leaves of the error, relative to it.

    The terms that go through an edge ``beside`` are right, as where a backward computes the sum of
    a softmax apart.
    """
    here = jacobians_of(evidence.examination, draw)
    assert here.network is not None
    leaf = here.paths.index(evidence.path)
    ours, exact = evidence.pairs[draw]
    g = evidence.comparisons[draw].g
    apart = np.zeros_like(exact)
    if beside is not None:
        closed = [[edge is not beside for edge in here.network.edges]]
        apart = exact - here.network.pull([g], here.at.inputs, gates=np.array(closed))[1][leaf][0]
    chosen = list(trials)
    for start in range(0, len(chosen), CHUNK):
        part = chosen[start : start + CHUNK]
        shifts = np.zeros((len(part), here.network.size))
        for row, i in enumerate(part):
            for edge, values in trials[i].reads:
                shifts[row, edge.place] = values.reshape(-1) - here.operands[edge.place]
        cut = [{*trials[i].cut, beside} for i in part]
        gates = np.array([[edge not in some for edge in here.network.edges] for some in cut])
        anew = np.array([float(trials[i].anew) for i in part])
        repeated = [g] * len(part)
        leaves = here.network.pull(repeated, here.at.inputs, shifts, anew, gates)[1][leaf]
        for i, mine in zip(part, leaves, strict=True):
            rest = np.linalg.norm(ours - mine - apart) / np.linalg.norm(ours - exact)
            yield i, float(rest) if np.isfinite(rest) else np.inf


def _concerned(here: Jacobians, path: str) -> list[Edge]:
    """Return the edges of the operations through which a leaf gets its gradient."""
    assert here.network is not None
    down, up = np.abs(here.down).max(axis=0), np.abs(here.up(path)).max(axis=1)
    edges = here.network.edges
    passed = {id(e.step) for e in edges if (down[e.place] * up[e.place]).any()}
    codes = {edge.code for edge in edges if id(edge.step) in passed}
    return [edge for edge in edges if edge.code in codes]


def _trials(here: Jacobians, concerned: list[Edge]) -> Iterator[Trial]:
    """Yield what a backward may read instead; in the same order at every draw."""
    assert here.network is not None
    edges = here.network.edges
    operands = {edge: here.operands[edge.place].reshape(edge.shape) for edge in edges}
    reading = [e for e in concerned if e.step.name not in LINEAR or not e.floating]
    for edge in reading:
        array = operands[edge] if edge.floating else operands[edge].astype(np.int64)
        for how, values in _variants(array):
            cause = _meaning(here, edge, how)
            yield Trial((cause, f"{edge} is read {how}"), [(edge, values)])
        for how, values in _parts(operands[edge]) if edge.floating else ():
            yield Trial(("slice kept", f"of {edge} {how} is used"), [(edge, values)])
    loops = [turns for turns in _grouped(concerned, lambda edge: edge.code) if len(turns) > 1]
    carried = _carried(here, loops)
    everything = [[edge for turns in carried.values() for edge in turns]] if carried else []
    for some in [*carried.values(), *everything]:
        text = "nothing passes from one turn of the loop to the next"
        yield Trial(("missing term", f"{text} through {some[0]}"), [], cut=tuple(some))
    for turns in loops:
        yield from _in_a_loop(turns, operands, read=turns[0] in reading)
    for mask in (e for e in edges if not e.floating and e.step.name == "select_n"):
        for value in (1, 0):
            text = f"{mask} lets everything through, and what follows from it is computed so"
            yield Trial(("mask leak", text), [(mask, np.full(mask.shape, value))], anew=True)
    floating = [edge for edge in reading if edge.floating]
    yield from _everywhere(here, floating, operands, anew=False)
    first = [members[0] for members in _grouped(edges, lambda edge: (edge.source, edge.shape))]
    for edge in floating:
        cause = "wrong point" if len(edge.step.inputs) == 1 else "misread"
        for other in first:
            if other.shape == edge.shape and other.source != edge.source and other.floating:
                text = f"{edge} is read from {other}"
                yield Trial((cause, text), [(edge, operands[other])])
                if _is_product(here, edge, other):
                    values = np.where(operands[edge] == 0, 0.0, operands[other])
                    text += ", where it is not zero"
                    yield Trial(("missing factor", text), [(edge, values)])
    yield from _everywhere(here, [e for e in edges if e.floating], operands, anew=True)


def _grouped(edges: list[Edge], key: Callable[[Edge], Any]) -> list[list[Edge]]:
    groups: dict[Any, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(key(edge), []).append(edge)
    return list(groups.values())


def _carried(here: Jacobians, loops: list[list[Edge]]) -> dict[Any, list[Edge]]:
    """Return the edges that read what an earlier turn of a loop has made, by what it is."""
    assert here.network is not None
    count = math.gcd(*map(len, loops))  # one line may do several like operations in each turn
    times = {id(turns): len(turns) // count if count > 1 else 1 for turns in loops}
    turn = {id(e.step): i // times[id(some)] for some in loops for i, e in enumerate(some)}
    found: dict[Any, list[Edge]] = {}
    for edge in (edge for turns in loops for edge in turns):
        maker = here.network.maker_of(edge)
        if maker is not None and turn.get(id(maker), len(turn)) < turn[id(edge.step)]:
            code = here.network.edges_of(maker)[0].code
            found.setdefault(code, []).append(edge)
    return found


def _in_a_loop(turns: list[Edge], operands: dict[Edge, Array], *, read: bool) -> Iterator[Trial]:
    """Yield what goes wrong in all turns of a loop: some pass nothing, or read others' values."""
    edge, count = turns[0], len(turns)
    if edge.floating:
        for period in range(2, max(2, count // 2) + 1):
            for first in range(period):
                text = f"nothing passes {edge} in every {period}th turn of the loop"
                yield Trial(("missing term", text), [], cut=tuple(turns[first::period]))
        for kept, which in ((0, "first"), (-1, "last")):
            rest = tuple(turn for turn in turns if turn is not turns[kept])
            text = f"of the turns of the loop only the {which} passes something at {edge}"
            yield Trial(("slice kept", text), [], cut=rest)
            text = f"the {which} turn of the loop passes nothing at {edge}"
            yield Trial(("missing term", text), [], cut=(turns[kept],))
    for how, values in _variants(np.stack([operands[turn] for turn in turns])) if read else ():
        text = f"{edge}, over the turns of the loop, is read {how}"
        yield Trial(("misread", text), list(zip(turns, values, strict=True)))


def _everywhere(
    here: Jacobians, edges: list[Edge], operands: dict[Edge, Array], *, anew: bool
) -> Iterator[Trial]:
    """Yield what may stand for a value wherever it is read, or where all that follows is, too."""
    again = ", and what follows from it is computed with that" if anew else ""
    groups = _grouped(edges, lambda edge: (edge.source, edge.shape))
    for members in groups:
        edge = members[0]
        for name, function in FUNCTIONS.items():
            with np.errstate(all="ignore"):
                values = function(operands[edge])
            text = f"{edge}, v, is read as {name.replace('{}', 'v')}{again}"
            if name != "{}":
                yield Trial(("wrong point", text), [(m, values) for m in members], anew)
        for how, values in _variants(operands[edge]):
            text = f"{edge} is read {how}{again}"
            yield Trial((_meaning(here, edge, how), text), [(m, values) for m in members], anew)
        for other in (others[0] for others in groups):
            if other.shape == edge.shape and other is not edge:
                values, text = operands[other], f"{edge} is read from {other}{again}"
                curved = anew or any(len(m.step.inputs) == 1 for m in members)
                cause = "wrong point" if curved else "misread"
                yield Trial((cause, text), [(m, values) for m in members], anew)


def _meaning(here: Jacobians, edge: Edge, how: str) -> str:
    """Return the cause that reading an array at wrong indices stands for."""
    if "exchanged" in how and edge.step.name == "dot_general":
        return "jacobian not transposed"
    if not edge.floating and edge.step.name == "gather":
        return "misplaced"  # its backward writes by these indices
    assert here.network is not None
    maker = here.network.maker_of(edge)
    summed = "last index" in how and maker is not None and maker.name == "cumsum"
    return "mask leak" if summed else "misread"


def _is_product(here: Jacobians, edge: Edge, factor: Edge) -> bool:
    """Tell whether an edge reads a product that has another value among its factors."""
    assert here.network is not None
    maker = here.network.maker_of(edge)
    while maker is not None and maker.name in ("transpose", "reshape", "broadcast_in_dim"):
        above = here.network.edges_of(maker)
        maker = here.network.maker_of(above[0]) if above else None
    if maker is None or maker.name not in ("mul", "dot_general", "div"):
        return False
    factors = here.network.edges_of(maker)
    sources = {e.source for f in factors for e in [f, *here.network.rearranged_by(f)]}
    return factor.source in sources


def _parts(array: Array) -> Iterator[tuple[str, Array]]:
    """Yield (how, values) of an array that is used in part."""
    for axis, size in enumerate(array.shape):
        for index, which in ((0, "first"), (size - 1, "last")) if size > 1 else ():
            alone = np.zeros_like(array)
            where = (slice(None),) * axis + (index,)
            alone[where] = array[where]
            yield f"only the {which} index of axis {axis}", alone
            if size > 2:
                yield f"all but the {which} index of axis {axis}", array - alone


def g_elsewhere(evidence: Evidence) -> Cause | None:
    """It is the truth for a g that is read at other indices."""
    first, *others = evidence.comparisons[:2]
    if not isinstance(first.g, np.ndarray) or first.g.ndim == 0:
        return None
    drawn = zip(*(_readings(c.g) for c in (first, *others)), strict=True)
    for readings in drawn:
        pairs = zip((first, *others), readings, evidence.pairs, strict=False)
        if all(
            evidence.close(
                ours,
                leaf_of(evidence.examination.oracle.results(c.inputs, g, "float64"), evidence.path),
            )
            for c, (_, g), (ours, _) in pairs
        ):
            how = readings[0][0]
            cause = "transposed" if "exchanged" in how else "misread"
            return cause, f"it is right for a g that is read {how}"
    return None


def _readings(g: Array) -> Iterator[tuple[str, Array]]:
    """Yield (how, values) of a g that is read at wrong indices or by wrong strides."""
    yield from _variants(g)
    rows, length = g.size // g.shape[-1], g.shape[-1]
    for stride in range(1, min(length, 33)) if rows > 1 else ():
        places = np.arange(rows)[:, None] * stride + np.arange(length)
        yield f"in rows of {stride} instead of {length}", g.reshape(-1)[places].reshape(g.shape)


def keyword_elsewhere(evidence: Evidence) -> Cause | None:
    """An array among the keywords is read at wrong indices."""
    oracle = evidence.examination.oracle
    if not isinstance(oracle, JaxOracle):
        return None
    keywords = oracle.keywords["float64"]
    arrays = {k: v for k, v in keywords.items() if isinstance(v, np.ndarray) and v.size > 1}
    first, *others = evidence.comparisons[:2]
    for name, array in arrays.items():
        leaf = jacobians_of(evidence.examination).paths.index(evidence.path)
        for how, values in _variants(array):
            pairs = zip((first, *others), evidence.pairs, strict=False)
            if np.array_equal(values, array):
                continue
            changed = arrays | {name: np.ascontiguousarray(values)}
            if all(
                evidence.close(ours, oracle.swept(changed, c.inputs, c.g)[leaf])
                for c, (ours, _) in pairs
            ):
                cause = "misplaced" if array.dtype.kind in "iu" else "misread"
                return cause, f"it is the gradient for {name} read {how}"
    return None


def _variants(array: Array) -> Iterator[tuple[str, Array]]:
    """Yield (how, values) of an array that is read at wrong indices."""
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    for count in (1, 2):
        for some in itertools.combinations(axes, count):
            for index, which in ((0, "first"), (-1, "last")):
                one = array
                for axis in some:
                    one = np.take(one, [index], axis)
                named = " and ".join(map(str, some))
                how = f"at the {which} index of axis {named} for all"
                yield how, np.broadcast_to(one, array.shape)
    for axis in axes if array.dtype.kind in "iu" else ():
        shape = [-1 if a == axis else 1 for a in range(array.ndim)]
        counted = np.arange(array.shape[axis], dtype=array.dtype).reshape(shape)
        yield f"as 0, 1, 2, … along axis {axis}", np.broadcast_to(counted, array.shape)
    for axis in axes:
        for by in (1, -1):
            rolled = np.roll(array, by, axis)
            yield f"one index off along axis {axis}", rolled
            empty = np.moveaxis(rolled.copy(), axis, 0)
            empty[0 if by > 0 else -1] = 0
            yield f"one index off along axis {axis}", np.moveaxis(empty, 0, axis)
            kept = np.clip(np.arange(array.shape[axis]) - by, 0, array.shape[axis] - 1)
            yield f"one index off along axis {axis}, the end twice", array.take(kept, axis)
        yield f"backwards along axis {axis}", np.flip(array, axis)
    for a, b in itertools.combinations(axes, 2):
        if array.shape[a] == array.shape[b]:
            yield f"with axes {a} and {b} exchanged", array.swapaxes(a, b)
