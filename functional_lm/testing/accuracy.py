"""How accurate a layer is: against the oracle in float64, against XLA in float32."""

from typing import Any

import numpy as np

from .. import pytree
from ..contract import Tree
from . import limits
from .inputs import LAYOUTS, cast
from .oracle import JaxOracle
from .report import LeafReport, Report
from .subject import Subject

_GROUPS = (("y",), ("params", "x"))
"""The trees whose largest entry sets the floor of rounding: the value, and the whole gradient."""


def compare_float64(subject: Subject, oracle: JaxOracle, draws: list[Any], report: Report) -> None:
    """Write each leaf's float64 error and limit to the report, those of the worst draw."""
    for inputs, g in draws:
        ours = subject.results(inputs, g)
        exact = oracle.results(inputs, g, "float64")
        for path, theirs, mine, largest in _rows(exact, ours):
            leaf = report.leaves.setdefault(path, LeafReport(path))
            error = limits.norm(mine - theirs)
            limit = limits.float64_limit(theirs, largest)
            if leaf.float64_error is None or _worse(error, limit, leaf):
                leaf.float64_error, leaf.float64_limit = error, limit


def compare_float32(
    subject: Subject, oracle: JaxOracle, draws: list[Any], factor: float, report: Report
) -> None:
    """Write each leaf's float32 error, XLA's and the limit to the report."""
    figures: dict[str, list[tuple[float, ...]]] = {}
    for draw in draws:
        inputs, g = cast(draw, np.float32)
        ours = subject.results(inputs, g)
        xla = oracle.results(inputs, g, "float32")
        exact_inputs, exact_g = cast((inputs, g), np.float64)
        exact = oracle.results(exact_inputs, exact_g, "float64")
        for (path, true, mine, largest), (_, _, theirs, _) in zip(
            _rows(exact, ours), _rows(exact, xla), strict=True
        ):
            true = limits.flush(true)
            errors = [limits.norm(limits.flush(result) - true) for result in (mine, theirs)]
            figures.setdefault(path, []).append((*errors, limits.norm(true), true.size, largest))
    for path, rows in figures.items():
        leaf = report.leaves.setdefault(path, LeafReport(path))
        mine, theirs, norm, size, largest = map(limits.root_mean_square, zip(*rows, strict=True))
        leaf.float32_error, leaf.xla_error = mine, theirs
        leaf.float32_limit = limits.float32_limit(theirs, norm, round(size), largest, factor)


def layout_faults(subject: Subject, inputs: Any, g: Any, dtype: str) -> list[str]:
    """Return a sentence on each result that depends on how the inputs lie in memory."""
    slack = float(np.finfo(dtype).eps / np.finfo(np.float64).eps)
    faults = []
    plain = subject.results(inputs, g)
    for name, lay_out in LAYOUTS.items():
        laid, laid_g, keywords = pytree.map(
            lambda leaf, lay_out=lay_out: lay_out(leaf) if isinstance(leaf, np.ndarray) else leaf,
            (inputs, g, subject.keywords),
        )
        result = subject.results(laid, laid_g, keywords)
        for path, expected, received, largest in _rows(plain, result):
            error = limits.norm(received - expected)
            if not error <= slack * limits.float64_limit(expected, largest):
                faults.append(f"{path} is wrong for {name} inputs in {dtype}")
    return faults


def _rows(exact: Tree, result: Tree) -> list[tuple[str, Any, Any, float]]:
    """Return (path, oracle's leaf, ours, largest entry of the group) for each leaf of the oracle.

    Integer leaves, whose cotangent is None, do not appear.
    """
    rows = []
    for names in _GROUPS:
        group = {name: exact[name] for name in names}
        sizes = [float(np.abs(leaf).max()) for leaf in pytree.leaves(group) if leaf.size]
        pairs = pytree.zip_with_path(group, {name: result[name] for name in names})
        rows += [(path, a, b, max(sizes, default=0.0)) for path, a, b in pairs]
    return rows


def _worse(error: float, limit: float, leaf: LeafReport) -> bool:
    """Tell whether an error is further past its limit than the leaf's; NaN is furthest."""
    return not _share(error, limit) <= _share(leaf.float64_error, leaf.float64_limit)


def _share(error: float | None, limit: float | None) -> float:
    if not error:
        return 0.0
    return error / limit if limit else float("inf")
