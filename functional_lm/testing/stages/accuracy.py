"""How accurate a layer is: against the oracle in float64, against XLA in float32."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Tree
from .. import limits
from ..inputs import cast, finite, jitter
from ..limits import ulp_error
from ..report import LeafReport
from ..subject import Comparison, Examination

__all__ = ["compare_float32", "compare_float64", "distance", "rows"]

_GROUPS = (("y",), ("params", "x"))
"""The trees whose largest entry sets the floor of rounding: the value, and the whole gradient."""


def compare_float64(examination: Examination) -> None:
    """Write each leaf's float64 error and limit to the report, those of the worst draw."""
    subject, oracle = examination.subject, examination.oracle
    noise = _xla_errors(examination)
    for inputs, g in examination.draws:
        exact = oracle.results(inputs, g, "float64")
        ours = subject.results(inputs, g)
        examination.comparisons.append(Comparison(inputs, g, exact, ours))
        for path, theirs, mine, largest in rows(exact, oracle.project(ours)):
            leaf = examination.report.leaves.setdefault(path, LeafReport(path))
            scale = limits.norm(finite(theirs)) or 1.0
            error = distance(mine, theirs, subject.may_be_non_finite) / scale
            limit = limits.float64_limit(
                finite(theirs), largest, tolerance=oracle.tolerance, xla_error=noise.get(path)
            )
            limit /= scale
            if leaf.float64_error is None or _worse(error, limit, leaf):
                leaf.float64_error, leaf.float64_limit = error, limit


def compare_float32(examination: Examination) -> None:
    """Write each leaf's float32 error, XLA's and the limit to the report.

    Both errors are random, and so is their ratio: where it is above the limit, but not far, four
    times as many draws decide, and then sixteen times as many.
    """
    figures: dict[str, list[tuple[float, ...]]] = {}
    draws = examination.oracle.draws
    for first, last in ((0, draws), (draws, 4 * draws), (4 * draws, 16 * draws)):
        for i in range(first, last):
            _measure_float32(examination, examination.draw(i), figures)
        leaves = [_judged_float32(examination, path, rows) for path, rows in figures.items()]
        if not any(1 < _share(leaf.float32_error, leaf.float32_limit) < 4 for leaf in leaves):
            return


def _measure_float32(
    examination: Examination, draw: Any, figures: dict[str, list[tuple[float, ...]]]
) -> None:
    """Add for each leaf (our error, XLA's, the leaf's norm, its entries, the largest entry)."""
    subject, oracle = examination.subject, examination.oracle
    inputs, g = cast(draw, np.float32)
    exact = _exact(examination, inputs, g)
    ours = subject.results(inputs, g)
    others = [(exact, oracle.results(inputs, g, "float32"))] if oracle.has_float32 else None
    allowed = _distances(others or _responses(examination, inputs, g))
    for path, true, mine, largest in rows(exact, oracle.project(ours)):
        size = limits.norm(finite(limits.flush(true)))
        error = distance(limits.flush(mine), limits.flush(true), subject.may_be_non_finite)
        row = (error, allowed.get(path, 0.0), size, true.size, largest)
        figures.setdefault(path, []).append(row)
        leaf = examination.report.leaves.setdefault(path, LeafReport(path))
        leaf.ulps = max(leaf.ulps or 0.0, _ulps(mine, true))


def _judged_float32(
    examination: Examination, path: str, measured: list[tuple[float, ...]]
) -> LeafReport:
    with_xla, leaf = examination.oracle.has_float32, examination.report.leaves[path]
    factor = examination.factor if with_xla else 4 * examination.factor
    mine, theirs, size, entries, largest = map(limits.root_mean_square, zip(*measured, strict=True))
    scale = size or 1.0
    limit = limits.float32_limit(theirs, size, round(entries), largest, factor)
    leaf.float32_error, leaf.float32_limit = mine / scale, limit / scale
    leaf.xla_error = theirs / scale if with_xla else None
    return leaf


def rows(exact: Tree, result: Tree) -> list[tuple[str, Any, Any, float]]:
    """Return (path, oracle's leaf, ours, largest entry of the group) for each leaf of the oracle.

    Integer leaves, whose cotangent is None, do not appear.
    """
    found = []
    for names in _GROUPS:
        group = {name: exact[name] for name in names if name in exact}
        sizes = [float(np.abs(finite(x)).max()) for x in pytree.leaves(group) if x.size]
        pairs = pytree.zip_with_path(group, {name: result[name] for name in group})
        found += [(path, a, b, max(sizes, default=0.0)) for path, a, b in pairs if b is not None]
    return found


def distance(mine: Any, theirs: Any, may_be_non_finite: bool) -> float:
    """Return ‖mine − theirs‖; NaN if an entry is not finite, unless that may be.

    Where it may be, entries that are the same NaN or infinity on both sides count as equal.
    """
    if may_be_non_finite:
        same = ~np.isfinite(theirs) & ((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)))
        mine, theirs = np.where(same, 0.0, mine), np.where(same, 0.0, theirs)
    with np.errstate(invalid="ignore"):
        return limits.norm(np.asarray(mine, np.float64) - theirs)


def _exact(examination: Examination, inputs: Any, g: Any) -> Tree:
    """Return the float64 results at inputs that were rounded to float32."""
    wide_inputs, wide_g = cast((inputs, g), np.float64)
    return examination.oracle.results(wide_inputs, wide_g, "float64", given="float32")


def _xla_errors(examination: Examination) -> dict[str, float]:
    """Return the norm of XLA's float32 error by leaf, root mean square over the draws."""
    oracle = examination.oracle
    if not oracle.has_float32:
        return {}
    rounded = [cast(draw, np.float32) for draw in examination.draws]
    pairs = ((_exact(examination, x, g), oracle.results(x, g, "float32")) for x, g in rounded)
    return {path: error for path, error in _distances(pairs).items() if np.isfinite(error)}


def _distances(pairs: Iterable[tuple[Tree, Tree]]) -> dict[str, float]:
    """Return how far each leaf of other results is from the exact one, root mean square."""
    errors: dict[str, list[float]] = {}
    for exact, other in pairs:
        for path, true, theirs, _ in rows(exact, other):
            error = distance(limits.flush(theirs), limits.flush(true), True)
            errors.setdefault(path, []).append(error)
    return {path: limits.root_mean_square(values) for path, values in errors.items()}


def _responses(examination: Examination, inputs: Any, g: Any) -> list[tuple[Tree, Tree]]:
    """Return our float64 results, and those at inputs that differ by the rounding of float32.

    Without XLA to compare with, this is what float32 must be forgiven: the error of a method that
    makes no other rounding than that of its inputs.
    """
    subject, project = examination.subject, examination.oracle.project
    wide = cast((inputs, g), np.float64)
    moved = [jitter((i,), wide, spread=limits.UNIT_ROUNDOFF) for i in range(3)]
    plain = project(subject.results(*wide))
    return [(plain, project(subject.results(*m))) for m in moved]


def _ulps(mine: Any, true: Any) -> float:
    """Return the largest error of an entry, among those as large as the leaf's typical one.

    A small entry is often the difference of large numbers; its last place says nothing.
    """
    typical = np.sqrt(np.mean(np.square(finite(true)))) if true.size else 0.0
    counts = np.isfinite(true) & (np.abs(true) >= max(typical, limits.SMALLEST_NORMAL))
    if not counts.any():
        return 0.0
    return float(ulp_error(mine[counts], true[counts], "float32").max())


def _worse(error: float, limit: float, leaf: LeafReport) -> bool:
    """Tell whether an error is further past its limit than the leaf's; NaN is furthest."""
    return not _share(error, limit) <= _share(leaf.float64_error, leaf.float64_limit)


def _share(error: float | None, limit: float | None) -> float:
    if not error:
        return 0.0
    return error / limit if limit else float("inf")
