"""Signatures of one operation of the reference that the backward undoes otherwise."""

import itertools
from typing import Any

import numpy as np

from ...contract import Array
from .edges import MOST, around, errors, least_squares, solve, together
from .evidence import Cause, Evidence, close
from .network import Edge, Jacobians, jacobians_of
from .terms import text_of

__all__ = ["mapped_otherwise", "not_summed", "other_entries_read", "selected_otherwise"]

MOST_SOLVED = 3_000_000
"""Entries of a matrix of effects."""

SELECTING = {"reduce_max", "reduce_min", "select_n", "max", "min", "clamp"}

SPREADING = {"reduce_sum", "broadcast_in_dim", "gather", "slice", "rev", "concatenate", "pad"}
"""In their backward each entry of the operand reads one entry of g, or each of g is read once."""

MAPS = {*SPREADING, "cumsum", "transpose", "reshape", "dot_general"}


def selected_otherwise(evidence: Evidence) -> Cause | None:
    """Where forward takes a maximum or selects, the backward lets other entries through."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    for edge in here.network.edges:
        if edge.step.name not in SELECTING or edge.place.stop - edge.place.start > MOST:
            continue
        arriving = _arriving(here, edge)
        if arriving is None:
            continue
        for paths in together(evidence, here):
            error = errors(here, paths)
            down, up = around(here, paths, np.r_[edge.place])
            place = solve([edge], np.r_[edge.place], arriving, up, error)
            if place is None:
                continue
            square = (arriving**2).sum(axis=0)
            slopes = np.where(
                square > 0, (down * arriving).sum(axis=0) / (square + (square == 0)), 0
            )
            mine = slopes + place.factors - 1
            cause = _selection(slopes[place.known], mine[place.known])
            if cause:
                step = text_of(edge.step.name, edge.step.line)
                text = f"the backward of {step} lets g through at other entries than forward took"
                if cause == "missing factor":
                    text = f"in {step} equal entries share g, and each gets all of it"
                return cause, text
    return None


def _selection(slopes: Array, mine: Array) -> str:
    """Return what it means that a selection has these slopes in our backward."""
    passing = np.abs(mine - 1) < 1e-6
    if not (passing | (np.abs(mine) < 1e-6)).all():
        return ""
    taken = slopes > 1e-6
    if (passing == taken).all():
        return "missing factor"
    if (taken <= passing).all():
        return "mask leak"
    return "extra mask" if (passing <= taken).all() else "misread"


def _arriving(here: Jacobians, edge: Edge) -> Array | None:
    """Return the cotangent of the operation's result, at each entry of the operand."""
    assert here.network is not None
    out = here.network.cotangent_of(edge.target, here.down)
    shape = tuple(edge.step.outputs[0].aval.shape)
    if out is None:
        return None
    index = np.arange(out.shape[1]).reshape(shape)
    for axis in sorted(edge.step.params.get("axes", ())) if shape != edge.shape else ():
        index = np.expand_dims(index, axis)
    return out[:, np.broadcast_to(index, edge.shape).reshape(-1)]


def other_entries_read(evidence: Evidence) -> Cause | None:
    """A product meets other entries than forward had: each is to be found somewhere else."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    pairs: dict[Any, list[tuple[Edge, Edge]]] = {}
    for edge in here.network.edges:
        if edge.step.name in ("mul", "dot_general"):
            partners = [e for e in here.network.edges if e.step is edge.step and e is not edge]
            pairs.setdefault(edge.code, []).extend((edge, partner) for partner in partners[:1])
    singles = [[pair] for turns in pairs.values() if len(turns) > 1 for pair in turns]
    for turns in [*pairs.values(), *singles]:
        cause = _entries_read(here, evidence.path, turns)
        if cause is not None:
            return cause
    return None


def _entries_read(here: Jacobians, path: str, turns: list[tuple[Edge, Edge]]) -> Cause | None:
    """Say what the factors read that a product meets in each turn of a loop, or in its only one."""
    assert here.network is not None
    error = errors(here, [path])
    explained, ahead, elsewhere, count = np.zeros_like(error), True, True, 0
    partners = [partner for _, partner in turns]
    for i, (edge, partner) in enumerate(turns):
        right = here.operands[partner.place]
        solved = _partner(here, path, edge, partner, error)
        if solved is None:
            return None
        excess, known, change = solved
        explained += change
        wrong = known & (np.abs(excess) > 1e-6 * np.abs(right).max())
        mine = (right + excess)[wrong]
        if not mine.size:
            continue
        count += mine.size
        others = [partner, *here.network.rearranged_by(partner), *partners]
        ahead &= _drawn_from(here, mine, partners[i + 1 :], right)
        elsewhere &= _drawn_from(here, mine, others, right)
        if not elsewhere or not np.abs(mine).max() > 1e-9:
            return None
    if count < 2 or not close(explained, error, 1e-7):
        return None
    edge, partner = turns[0]
    if ahead:
        return "mask leak", f"in the backward of {edge} it meets {partner} of later turns"
    return "misread", (
        f"in the backward of {edge} it meets entries that forward does not have there: {count} "
        f"entries of {partner} are read at wrong places"
    )


def _drawn_from(here: Jacobians, values: Array, edges: list[Edge], right: Array) -> bool:
    """Tell whether each value is zero or that of an entry of some edges."""
    if not edges:
        return False
    pool = np.sort(np.concatenate([here.operands[e.place] for e in edges]))
    if pool.size < 2:
        return False
    place = np.searchsorted(pool, values).clip(1, pool.size - 1)
    distance = np.minimum(np.abs(pool[place] - values), np.abs(pool[place - 1] - values))
    near = (distance <= 1e-7 * np.abs(right).max()) | (np.abs(values) < 1e-9)
    return bool(near.all())


def _partner(
    here: Jacobians, path: str, edge: Edge, other: Edge, error: Array
) -> tuple[Array, Array, Array] | None:
    """Return how far the other factor of a product is from what an error asks for.

    Besides, which entries of it are known, and the error that it explains.
    """
    assert here.network is not None
    out = here.network.cotangent_of(edge.target, here.down)
    size, up = other.place.stop - other.place.start, here.up(path)
    if out is None or size > MOST:
        return None
    rows, columns = out.any(axis=1), up[edge.place].any(axis=0)
    out, up = out[rows], up[:, columns]
    part, explained = error[np.ix_(rows, columns)], np.zeros_like(error)
    if np.linalg.norm(part) <= 1e-9 * np.linalg.norm(error):
        return np.zeros(size), np.zeros(size, bool), explained  # nothing is wrong here
    if size * part.size > MOST_SOLVED:
        return None
    if edge.step.name == "mul":
        if out.shape[1] != size or edge.shape != other.shape:
            return None
        effects = np.einsum("gk,kl->glk", out, up[edge.place])
    else:
        letters = iter("abcdefghijkmnopqrstuvw")
        contracted, batched = edge.step.params["dimension_numbers"]
        names = [[""] * len(e.shape) for e in (edge, other)]
        sides = (edge.operand, other.operand)
        for pairs in (contracted, batched):
            for axes in zip(*(pairs[side] for side in sides), strict=True):
                letter = next(letters)
                for name, axis in zip(names, axes, strict=True):
                    name[axis] = letter
        free: list[list[str]] = [[], []]
        for i, name in enumerate(names):
            for axis, letter in enumerate(name):
                if not letter:
                    name[axis] = next(letters)
                    free[i].append(name[axis])
        shared = [names[0][axis] for axis in batched[edge.operand]]
        order = free if edge.operand == 0 else free[::-1]
        result = "".join([*shared, *order[0], *order[1]])
        mine, theirs = ("".join(name) for name in names)
        effects = np.einsum(
            f"z{result},{mine}y->zy{theirs}",
            out.reshape(-1, *edge.step.outputs[0].aval.shape),
            up[edge.place].reshape(*edge.shape, -1),
            optimize=True,
        )
    effects = effects.reshape(-1, size)
    excess, known = least_squares(effects.T @ effects, effects.T @ part.reshape(-1))
    change = (effects @ excess).reshape(part.shape)
    if not close(change, part, 1e-7):
        return None
    explained[np.ix_(rows, columns)] = change
    return excess, known, explained


def mapped_otherwise(evidence: Evidence) -> Cause | None:
    """A sum, a broadcast or another map of indices is undone along other axes or indices."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    error = errors(here, [evidence.path])
    for edge in here.network.edges:
        if edge.step.name not in MAPS or edge.place.stop - edge.place.start > MOST:
            continue
        out = here.network.cotangent_of(edge.target, here.down)
        if out is None or out.shape[1] > MOST:
            continue
        down, up = around(here, [evidence.path], np.r_[edge.place])
        left, right = np.linalg.pinv(out), np.linalg.pinv(up)
        right_map = left @ down
        excess = left @ error @ right
        if not close(out @ excess @ up, error, 1e-7) or not close(out @ right_map, down, 1e-7):
            continue
        known = np.einsum("ij,ji->i", up, right) > 1 - 1e-6
        cause = _changed_map(right_map, right_map + excess, edge, known)
        if cause is not None:
            return cause
    return None


def _changed_map(exact: Array, ours: Array, edge: Edge, known: Array) -> Cause | None:
    """Say how a map of cotangents, (result, operand), differs from what it should be."""
    step = text_of(edge.step.name, edge.step.line)
    outer = tuple(edge.step.outputs[0].aval.shape)
    whole, mine = (a.reshape(*outer, *edge.shape) for a in (exact, ours))
    if exact.shape[0] == exact.shape[1] and close(ours, exact.T, 1e-6):
        return "jacobian not transposed", f"the Jacobian of {step} is applied, not its transpose"
    for first, count in ((len(outer), len(edge.shape)), (0, len(outer))):
        for a, b in itertools.combinations(range(first, first + count), 2):
            if whole.shape[a] == whole.shape[b] > 1 and close(mine, whole.swapaxes(a, b), 1e-6):
                which = f"axes {a - first} and {b - first}"
                return "transposed", f"{which} are exchanged where {step} is undone"
    reads = np.abs(ours[:, known]) > 1e-6
    single = edge.step.name in SPREADING and known.any() and (reads.sum(axis=0) <= 1).all()
    if single and close(ours[:, known].sum(axis=0), exact[:, known].sum(axis=0), 1e-6):
        return "misread", f"entries of g are read at wrong indices where {step} is undone"
    return None


def not_summed(evidence: Evidence) -> Cause | None:
    """Where a sum is broadcast again, the backward treats each entry alone."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    error = errors(here, [evidence.path])
    for summed in here.network.edges:
        entries = np.r_[summed.place]
        if summed.step.name != "reduce_sum" or entries.size > MOST:
            continue
        down, up = around(here, [evidence.path], entries)
        alone = error + down @ up  # what ours has in the place of this path
        for edge in here.network.edges:
            if edge.shape != summed.shape or not edge.floating or edge.step is summed.step:
                continue
            arriving = here.down[:, edge.place]
            place = solve([edge], entries, arriving, up, alone)
            if place is None or np.count_nonzero(place.known) < 4:
                continue
            slopes = (place.factors - 1).reshape(summed.shape)
            axes = tuple(summed.step.params["axes"])
            if np.ptp(slopes, axis=axes).max() <= 1e-6 * np.abs(slopes).max() and slopes.any():
                step = text_of(summed.step.name, summed.step.line)
                return "missing sum", f"each entry of {edge} is taken alone where {step} adds them"
    return None
