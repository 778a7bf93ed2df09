"""Signatures that show when g is kept at one index of one axis only."""

from collections.abc import Iterator

import numpy as np

from .evidence import Cause, Evidence, fit, name_constant

__all__ = ["mask_leak", "never_written", "one_survives", "pure_leak", "scatter", "slice_kept"]


def never_written(evidence: Evidence) -> Cause | None:
    """Nothing but zeros, whatever goes in."""
    if any(ours.any() or not exact.any() for ours, exact in evidence.pairs):
        return None
    return "never written", "it is zero for every g, and should not be"


def slice_kept(evidence: Evidence) -> Cause | None:
    """Right for the g of some indices of an axis, zero or doubled for that of the others."""
    for axis, none, right, twice in _kept(evidence):
        size = sum(a == axis for a, _ in evidence.responses)
        where = f"axis {axis} of g (size {size})"
        if none and not twice:
            apart = _written_in_part(evidence)
            return apart or (
                "slice kept",
                f"only index {_listed(right)} of {where} contributes, and {_listed(none)} is left "
                "out: a sum over that axis keeps a part",
            )
        if twice and not none:
            return "constant factor", f"index {_listed(twice)} of {where} is counted twice"
    return _scaled_in_part(evidence)


def _scaled_in_part(evidence: Evidence) -> Cause | None:
    """The g of some indices of an axis counts by another factor."""
    for axis in sorted({axis for axis, _ in evidence.responses}):
        parts = {i: pair for (a, i), pair in evidence.responses.items() if a == axis}
        times = {i: fit(*pair) for i, pair in parts.items() if pair[1].any()}
        if any(
            c is None or not evidence.close(parts[i][0], c * parts[i][1]) for i, c in times.items()
        ):
            continue
        wrong = {i: c for i, c in times.items() if c is not None and abs(c - 1) > 1e-7}
        factors = {round(c, 7) for c in wrong.values()}
        if len(factors) == 1 and 0 < len(wrong) < len(times) and abs(min(factors)) > 1e-7:
            called = name_constant(next(iter(wrong.values())), evidence)
            return (
                "constant factor",
                f"index {_listed([*wrong])} of axis {axis} of g counts {called} times",
            )
    return None


def _kept(evidence: Evidence) -> Iterator[tuple[int, list[int], list[int], list[int]]]:
    """Yield (axis, ...) with the indices of g that count for nothing, rightly, and twice."""
    for axis in sorted({axis for axis, _ in evidence.responses}):
        parts = {i: pair for (a, i), pair in evidence.responses.items() if a == axis}
        times: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for i, (ours, exact) in parts.items():
            for factor, indices in times.items():
                if evidence.close(ours, factor * exact) or not (factor or ours.any()):
                    indices.append(i)
                    break
            else:
                break
        else:
            none, right, twice = (
                [i for i in indices if parts[i][1].any()] for indices in times.values()
            )
            if right:
                yield axis, none, right, twice


def _written_in_part(evidence: Evidence) -> Cause | None:
    """For a leaf that sums nothing over what is left out: its entries are right or zero."""
    lost = evidence.ours == 0
    if not lost.any() or not all(
        evidence.close(np.where(lost, 0.0, exact), ours) and (exact[lost] != 0).any()
        for ours, exact in evidence.pairs
    ):
        return None
    count = np.count_nonzero(lost)
    return "written in part", f"{count} of {lost.size} entries are zero, and all others are right"


def one_survives(evidence: Evidence) -> Cause | None:
    """Entries of g that belong to one place overwrite each other there: only one is left."""
    g = evidence.comparisons[0].g
    if not isinstance(g, np.ndarray) or not 1 < g.size <= 128:
        return None
    pairs = zip(*evidence.unit_responses(g), strict=True)
    mine, truth = map(np.stack, pairs)  # (entries of g, entries of the leaf)
    lost = (truth != 0) & (mine == 0)
    right = np.abs(mine - truth) <= 1e-9 * np.abs(truth).max()
    several = np.count_nonzero(truth, axis=0) > 1
    kept = np.count_nonzero(mine, axis=0)
    if not (lost.any() and (right | lost).all() and (kept[several] == 1).all()):
        return None
    if not (kept[~several] == np.count_nonzero(truth, axis=0)[~several]).all():
        return None
    return "scatter", (
        "where several entries of g belong to one place only one of them is left: assignment "
        "keeps the last one where all must add; use np.add.at or a sum by segment"
    )


def scatter(evidence: Evidence) -> Cause | None:
    """Wrong in exactly the rows whose id occurs more than once.

    The ids stand along some axes of g, and the leaf must be what the last of each alone gives.
    """
    g = evidence.comparisons[0].g
    for ids in evidence.integers if isinstance(g, np.ndarray) else ():
        whole = ids.reshape(-1).astype(np.int64)
        _, from_last = np.unique(whole[::-1], return_index=True)
        kept = np.zeros(whole.size, bool)
        kept[whole.size - 1 - from_last] = True
        if not any(
            evidence.close(evidence.ours, evidence.response(np.where(kept.reshape(shape), g, 0))[1])
            for shape in _along(whole.size, g.shape)
        ):
            continue
        for axis, size in enumerate(evidence.exact.shape):
            if not whole.size or whole.min() < 0 or whole.max() >= size:
                continue
            counts = np.bincount(whole, minlength=size)
            if counts.max() < 2:
                continue
            others = tuple(a for a in range(evidence.exact.ndim) if a != axis)
            right = np.isclose(evidence.ours, evidence.exact, rtol=1e-8, atol=1e-12).all(others)
            wrong = np.flatnonzero(~right).tolist()
            if wrong and wrong == np.flatnonzero(counts > 1).tolist():
                return "scatter", (
                    f"the wrong rows are exactly those of the repeated ids, {_listed(wrong)}: "
                    "assignment keeps the last one where all must add; use np.add.at or a sum "
                    "by segment"
                )
    return None


def _along(size: int, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shapes in which so many ids stand along some neighbouring axes of g."""
    for first in range(len(shape)):
        for last in range(first + 1, len(shape) + 1):
            if size == int(np.prod(shape[first:last])):
                yield (1,) * first + shape[first:last] + (1,) * (len(shape) - last)


def pure_leak(evidence: Evidence) -> Cause | None:
    """Right wherever the true gradient is not zero, and nonzero where it is exactly zero."""
    return _leak(evidence, pure=True)


def mask_leak(evidence: Evidence) -> Cause | None:
    """Nonzero where the true gradient is exactly zero, in a layer that has a mask."""
    return _leak(evidence, pure=False)


def _leak(evidence: Evidence, *, pure: bool) -> Cause | None:
    leaks = off = False
    for ours, exact in [(evidence.ours, evidence.exact), *evidence.responses.values()]:
        size = max(np.abs(exact).max(initial=0.0), np.abs(ours).max(initial=0.0))
        wrong = np.abs(ours - exact) > 1e-9 * size
        leaks |= bool((wrong & (exact == 0)).any())
        off |= bool((wrong & (exact != 0)).any())
    names = " ".join([*evidence.names[0], *evidence.examination.subject.keywords(np.float64)])
    masked = any(word in names for word in ("causal", "mask", "ignore"))
    if not leaks or (off if pure else not masked):
        return None
    mask = "the causal mask" if "causal" in names else "a mask"
    return "mask leak", (
        f"it is nonzero where the true gradient is exactly zero, as if it passed through {mask}"
        + ("; all other entries are right" if pure else "")
    )


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown}, ..." if len(numbers) > 8 else shown
