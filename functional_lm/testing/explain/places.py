"""Signatures of indices: which entries of g are read, and which of the leaf are written."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from ... import pytree
from ...contract import Array
from .evidence import Cause, Evidence, leaf_of
from .network import jacobians_of
from .terms import text_of

__all__ = [
    "copied",
    "examples_mixed",
    "g_at_other_places",
    "lands_elsewhere",
    "one_term_each",
    "other_leaves",
    "outputs_exchanged",
    "passed_early",
    "right_or_zero",
    "unrelated",
    "wider",
    "written_elsewhere",
]


CHANCES = 100
"""So many ways to choose as many entries: then it is no chance that they are the smallest."""


def _pair(evidence: Evidence, draw: int = 0) -> tuple[Array, Array]:
    """Return the Jacobians (ours, the truth) of the leaf: (entries of y, entries of the leaf)."""
    jacobians = jacobians_of(evidence.examination, draw)
    return jacobians.ours[evidence.path], jacobians.exact[evidence.path]


def g_at_other_places(evidence: Evidence) -> Cause | None:
    """It is the truth for a g whose entries were read at other indices."""
    ours, exact = _pair(evidence)
    shape = getattr(evidence.comparisons[0].g, "shape", ())
    if len(exact) < 2 or np.linalg.matrix_rank(exact) < len(exact):
        return None
    read = ours @ np.linalg.pinv(exact)  # (entry of g, place where it is used)
    one = np.abs(read - 1) < 1e-6
    if not (one | (np.abs(read) < 1e-6)).all() or not (one.sum(axis=0) == 1).all():
        return None
    source = one.argmax(axis=0)
    if (source == np.arange(len(source))).all() or not evidence.close(read @ exact, ours):
        return None
    worst = int((source != np.arange(len(source))).argmax())
    place, taken = (
        [int(i) for i in np.unravel_index(k, shape)] if shape else k
        for k in (worst, int(source[worst]))
    )
    text = f"g{taken} is used in place of g{place}"
    if len(np.unique(source)) < len(source):
        return "misread", f"it is right for a g that is read at wrong indices: {text}"
    return "misplaced", f"it is right for a g in another order: {text}"


def written_elsewhere(evidence: Evidence) -> Cause | None:
    """Each entry of the leaf is right, zero, or what another entry should be, for every g."""
    ours, exact = _pair(evidence)
    size = np.abs(exact).max(initial=0.0)
    right = (np.abs(ours - exact) <= 1e-9 * size).all(axis=0)
    zero = (np.abs(ours) <= 1e-9 * size).all(axis=0) & ~right
    wrong = ~right & ~zero
    shape = evidence.exact.shape
    if not zero.any() and not wrong.any():
        return None
    if not wrong.any():
        if not right[np.abs(exact).max(axis=0) > 1e-9 * size].any():
            return None
        below = _threshold(evidence, zero)
        if below:
            return "extra mask", f"it is zero wherever {below}, and forward masks nothing there"
        return "written in part", f"{_entries(zero, shape)} are zero, and all others are right"
    distance = np.abs(ours[:, wrong, None] - exact[:, None, :]).max(axis=0)  # (wrong, entries)
    sources = [*distance.argmin(axis=1), *np.flatnonzero(right)]
    if (distance.min(axis=1) > 1e-9 * size).any() or len({*sources}) < len(sources):
        return None  # what is copied to several entries is no matter of places
    first = int(np.flatnonzero(wrong)[0])
    here, there = (
        [int(i) for i in np.unravel_index(k, shape)] for k in (first, int(distance[0].argmin()))
    )
    return (
        "misplaced",
        f"entry {here} holds what belongs at {there}, and so for {wrong.sum()} entries",
    )


def _threshold(evidence: Evidence, zero: Array) -> str:
    """Say which side of a number a leaf has, or y, wherever the gradient of the leaf is zero."""
    for name in (evidence.path, "y"):
        texts = [f"{name} is small", f"|{name}| is small", f"{name} is large", f"|{name}| is large"]
        holds = np.full(4, math.comb(zero.size, int(zero.sum())) > CHANCES)
        for comparison, (ours, exact) in zip(evidence.comparisons, evidence.pairs, strict=True):
            inputs = dict(zip(("params", "x"), comparison.inputs, strict=True))
            values = dict(pytree.leaves_with_path(inputs | {"y": comparison.exact["y"]}))[name]
            lost = (ours == 0) & (exact != 0)
            if values.shape != lost.shape or not values[lost].any():
                holds[:] = False  # where it is zero itself, a division may have gone wrong
            elif not lost.all():
                both = [(v[lost], v[~lost]) for v in (values, np.abs(values))]
                holds[:2] &= [low.max() < high.min() for low, high in both]
                holds[2:] &= [low.min() > high.max() for low, high in both]
        if holds.any():
            return texts[int(holds.argmax())]
    return ""


def lands_elsewhere(evidence: Evidence) -> Cause | None:
    """Each entry of g sends the right total, or the right numbers, to other entries of the leaf."""
    for draw in range(min(2, len(evidence.comparisons))):
        ours, exact = _pair(evidence, draw)
        if exact.shape[1] > 2 and evidence.close(np.sort(ours, axis=1), np.sort(exact, axis=1)):
            continue
        totals, size = exact.sum(axis=1), np.abs(exact).sum(axis=1)
        if not (np.abs(totals) > 1e-3 * size).all() or exact.shape[1] < 3:
            return None
        if not (np.abs(ours.sum(axis=1) - totals) <= 1e-9 * size).all():
            return None
        if ((exact == 0) == (ours == 0)).all():
            return None
    return "misplaced", (
        "what each entry of g sends is right in sum, and arrives at other entries of the leaf: an "
        "index is computed wrongly"
    )


def passed_early(evidence: Evidence) -> Cause | None:
    """It is the cotangent of a value on the way, or g, without the steps that remain."""
    jacobians = jacobians_of(evidence.examination)
    ours, exact = _pair(evidence)
    if jacobians.network is None:
        return None
    given = []
    for edge in jacobians.network.edges:
        result = jacobians.network.cotangent_of(edge.target, jacobians.down)
        line = text_of(edge.step.name, edge.step.line)
        for arriving, name in ((jacobians.down[:, edge.place], str(edge)), (result, line)):
            if arriving is None or arriving.shape != ours.shape:
                continue
            if not evidence.close(arriving, exact):
                given.append((arriving, f"the cotangent of {name}"))
    for arriving, name in given:
        if evidence.close(ours, arriving):
            return "missing factor", f"it is {name}: what lies between is not differentiated"
    return None


def other_leaves(evidence: Evidence) -> Cause | None:
    """It is the sum of the gradients of other leaves, or has one of them in it."""
    jacobians = jacobians_of(evidence.examination)
    ours, exact = _pair(evidence)
    others = {p: a for p, a in jacobians.exact.items() if a.shape == exact.shape}
    if len(others) < 2:
        return None
    columns = np.stack([a.reshape(-1) for a in others.values()], axis=1)
    weights: Array = np.linalg.pinv(columns) @ ours.reshape(-1)
    whole: Array = np.rint(weights)
    if np.linalg.matrix_rank(columns) < len(others) or not np.allclose(weights, whole, atol=1e-6):
        return None
    if not evidence.close(columns @ whole, ours.reshape(-1)) or abs(whole).sum() < 2:
        return None
    text = " + ".join(f"{w:g}·d_{p}" for p, w in zip(others, whole, strict=True) if w)
    own = whole[list(others).index(evidence.path)]
    return ("extra term" if own == 1 else "wrong term"), f"it is {text}"


def examples_mixed(evidence: Evidence) -> Cause | None:
    """It is right for each example alone, and wrong for them together."""
    first, subject = evidence.comparisons[0], evidence.examination.subject
    leaves = pytree.leaves((first.inputs[1], first.g))
    size = len(leaves[0]) if leaves[0].ndim else 0
    arrays = pytree.leaves(subject.keywords(np.float64))
    if size < 2 or any(a.ndim == 0 or len(a) != size for a in leaves):
        return None
    if any(a.ndim and len(a) == size for a in arrays):
        return None
    ours, exact = (a.reshape(size, -1, *evidence.exact.shape) for a in _pair(evidence))
    if evidence.path.startswith("params"):
        report = evidence.examination.report
        wrong = [path for path, leaf in report.leaves.items() if not leaf.within("float64")]
        own = [Evidence(evidence.examination, path) for path in wrong if path.startswith("x")]
        if not any(examples_mixed(other) for other in own):
            return None
    elif evidence.exact.shape[:1] != (size,) or not all(
        evidence.close(ours[i, :, i], exact[i, :, i]) for i in range(size)
    ):
        return None
    for i in range(size):
        x, g = (pytree.map(lambda a, i=i: a[i : i + 1], t) for t in (first.inputs[1], first.g))
        ours = subject.results((first.inputs[0], x), g)
        exact = evidence.examination.oracle.results((first.inputs[0], x), g, "float64")
        if not evidence.close(leaf_of(ours, evidence.path), leaf_of(exact, evidence.path)):
            return None
    return "edge shape", "it is right for each example alone: the examples of a batch are mixed"


def outputs_exchanged(evidence: Evidence) -> Cause | None:
    """The cotangent of one output is treated as that of another."""
    sizes = [leaf.size for leaf in pytree.leaves(evidence.comparisons[0].g)]
    ours, exact = (np.split(a, np.cumsum(sizes)[:-1]) for a in _pair(evidence))
    taken = {}
    for i, mine in enumerate(ours):
        if evidence.close(mine, exact[i]) or not (mine.any() or exact[i].any()):
            continue
        others = [j for j, truth in enumerate(exact) if evidence.close(mine, truth)]
        if not others:
            return None
        taken[i] = others[0]
    if not taken:
        return None
    i, j = next(iter(taken.items()))
    cause = "swapped" if taken.get(j) == i else "wrong term"
    return cause, f"the cotangent of output {i} of y is sent back as if it were that of output {j}"


def copied(evidence: Evidence) -> Cause | None:
    """Entries of the leaf are copies of what others should be, for every g."""
    ours, exact = _pair(evidence)
    size = np.abs(exact).max(initial=0.0)
    distance = np.abs(ours[:, :, None] - exact[:, None, :]).max(axis=0)
    source = distance.argmin(axis=1)
    if (distance.min(axis=1) > 1e-9 * size).any() or (np.diag(distance) <= 1e-9 * size).all():
        return None
    wrong = int((np.diag(distance) > 1e-9 * size).argmax())
    here, there = (_index(k, evidence.exact.shape) for k in (wrong, int(source[wrong])))
    return "misread", f"entry {here} is a copy of what belongs at {there}"


def one_term_each(evidence: Evidence) -> Cause | None:
    """Each entry of the leaf reads one entry of g, where it should sum over several."""
    ours, exact = _pair(evidence)
    mine, true = np.count_nonzero(ours, axis=0), np.count_nonzero(exact, axis=0)
    if exact.shape[1] < 4 or (true < 2).any() or (mine > 1).any() or not mine.any():
        return None
    return "missing sum", (
        "each entry has one entry of g in it, where it should have a sum over "
        f"{true.min()} or more: a product of matrices is taken entry by entry"
    )


def wider(evidence: Evidence) -> Cause | None:
    """It mixes other entries than forward does, and is wrong where forward mixes them, too."""
    jacobians = jacobians_of(evidence.examination)
    ours, exact = _pair(evidence)
    added = (exact == 0) & (np.abs(ours) > 1e-9 * np.abs(exact).max(initial=0.0))
    lost = ((ours == 0) & (exact != 0)).any()
    if not added.any() or jacobians.network is None or (lost and not _reduces(evidence)):
        return None
    if _reduces(evidence):
        return "wrong term", "a sum or a mean runs over other entries than in forward"
    return "extra term", "it mixes entries that forward does not mix"


def _reduces(evidence: Evidence) -> bool:
    """Tell whether forward sums on the way from the leaf, and uses the sum."""
    jacobians = jacobians_of(evidence.examination)
    assert jacobians.network is not None
    up = np.abs(jacobians.up(evidence.path)).max(axis=1)
    sums = [e.place for e in jacobians.network.edges if e.step.name == "reduce_sum"]
    return any(up[place].any() and jacobians.down[:, place].any() for place in sums)


def _index(k: int, shape: tuple[int, ...]) -> list[int]:
    return [int(i) for i in np.unravel_index(k, shape)]


def unrelated(evidence: Evidence) -> Cause | None:
    """Entries of y send something to entries of the leaf that do not feed them."""
    ours, exact = _pair(evidence)
    size = np.abs(exact).max(initial=0.0)
    wrong = np.abs(ours - exact) > 1e-9 * size
    if not wrong.any() or (wrong & (exact != 0)).any() or not exact.any():
        return None
    pairs = np.count_nonzero(wrong)
    text = f"{pairs} pairs of an entry of y and one of the leaf are related that forward does not"
    if _against_order(evidence, exact, wrong):
        return "mask leak", f"{text} relate, all against the order of an axis"
    names = " ".join([*evidence.names[0], *evidence.examination.subject.keywords(np.float64)])
    if any(word in names for word in ("causal", "mask", "ignore", "window", "offset")):
        return "mask leak", f"{text} relate: its mask is missing here"
    if jacobians_of(evidence.examination).network is not None and _reduces(evidence):
        return "wrong term", f"{text} relate: a sum runs over more entries"
    return "extra term", f"{text} relate"


def _against_order(evidence: Evidence, exact: Array, wrong: Array) -> bool:
    """Tell whether forward looks back along an axis only, and all that is wrong looks ahead."""
    seen = False
    for tables in _along_axes(evidence, exact != 0, wrong):
        if any(bad.any() for _, bad in tables):
            seen = True
            if not any(_looks_back(true) and not np.tril(bad).any() for true, bad in tables):
                return False
    return seen


def _looks_back(table: Array) -> bool:
    return bool(np.tril(table, -1).any() and not np.triu(table, 1).any())


def _along_axes(evidence: Evidence, *matrices: Array) -> Iterator[list[tuple[Array, ...]]]:
    """Yield for each output a list with the matrices, summed up along each pair of like axes.

    Each is a table (index of y, index of the leaf): whether any pair of entries there is marked.
    """
    shape, start = evidence.exact.shape, 0
    for g in pytree.leaves(evidence.comparisons[0].g):
        rows = [m[start : start + g.size].reshape(*g.shape, *shape) for m in matrices]
        start += g.size
        tables = []
        for a, b in itertools.product(range(g.ndim), range(len(shape))):
            if g.shape[a] == shape[b] > 1:
                others = tuple(i for i in range(g.ndim + len(shape)) if i not in (a, g.ndim + b))
                tables.append(tuple(np.asarray(row.any(axis=others)) for row in rows))
        yield tables


def right_or_zero(evidence: Evidence) -> Cause | None:
    """Each entry of the Jacobian is right or zero."""
    ours, exact = _pair(evidence)
    size = np.abs(exact).max(initial=0.0)
    right = np.abs(ours - exact) <= 1e-9 * size
    lost = ~right & (np.abs(ours) <= 1e-9 * size)
    if not (right | lost).all() or not (right & (np.abs(exact) > 1e-9 * size)).any():
        return None
    for tables in _along_axes(evidence, exact != 0, right & (exact != 0), lost):
        for true, kept, gone in tables:
            block = np.cumsum(~np.append(True, np.diagonal(kept, -1)))
            if (
                _looks_back(true)
                and not (kept & gone).any()
                and (np.tril(kept) == np.tril(block[:, None] == block)).all()
            ):
                return "missing term", "what comes before a step gets nothing from those after it"
    return "extra mask", (
        f"of the {np.count_nonzero(exact)} pairs of an entry of y and one of the leaf, "
        f"{np.count_nonzero(lost)} are taken for unrelated, and all others are right"
    )


def _entries(chosen: Array, shape: tuple[int, ...]) -> str:
    """Return which entries are chosen, in a few words."""
    first = [int(i) for i in np.unravel_index(int(np.flatnonzero(chosen)[0]), shape)]
    count = int(chosen.sum())
    return f"{count} entries, the first at {first}," if count > 1 else f"entry {first}"
