"""Signatures of an entrywise factor that is left out or stands there too often."""

from collections.abc import Callable, Iterator

import numpy as np

from ... import pytree
from ...contract import Array
from ..inputs import scaled
from ..subject import BrokenLayer
from .evidence import Evidence, leaf_of
from .whole_leaf import Cause

_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "{}": lambda a: a,
    "1/{}": lambda a: 1 / a,
    "{}²": lambda a: a * a,
    "1/{}²": lambda a: 1 / (a * a),
    "√{}": np.sqrt,
    "1/√{}": lambda a: 1 / np.sqrt(a),
    "(1 − {})": lambda a: 1 - a,
    "(1 − {}²)": lambda a: 1 - a * a,
    "{}·(1 − {})": lambda a: a * (1 - a),
    "exp({})": np.exp,
    "cos({})": np.cos,
}


def entrywise(evidence: Evidence) -> Cause | None:
    """The truth times or over an array that has a name, entry by entry."""
    for name, factors in _candidates(evidence):
        pairs = [(a, b) for a, b in evidence.pairs[: len(factors)]]
        if all(evidence.close(a * f, b) for (a, b), f in zip(pairs, factors, strict=True)):
            return "missing factor", f"the factor {name} is left out"
        if all(evidence.close(a, b * f) for (a, b), f in zip(pairs, factors, strict=True)):
            if _divides(evidence, name):
                return "missing factor", f"the factor 1/{name} is left out"
            return "extra factor", f"the factor {name} stands there once too often"
    return _pattern(evidence)


def _divides(evidence: Evidence, name: str) -> bool:
    """Tell whether the true gradient is divided by an array, going by how both grow with x.

    With a(c·x) ~ cᵃ and the truth ~ cᵇ, a power b/a below zero says so.
    """
    c = evidence.comparisons[0]
    if name not in evidence.names[0] or name.startswith("params"):
        return False
    double = (c.inputs[0], scaled(c.inputs[1], 2.0))
    try:
        y, residuals = evidence.examination.subject.forward(double)
        tree = {"residuals": residuals, "y": y, "x": double[1]}
        array = dict(pytree.leaves_with_path(tree)).get(name)
        exact = evidence.examination.oracle.results(double, c.g, "float64")
    except BrokenLayer:
        return False
    truth = leaf_of(exact, evidence.path)
    if array is None or not truth.any() or not np.any(array):
        return False
    growth = np.linalg.norm(array) / np.linalg.norm(evidence.names[0][name])
    power = np.log2(np.linalg.norm(truth) / np.linalg.norm(evidence.exact))
    return bool(abs(np.log2(growth)) > 0.3 and power / np.log2(growth) < -0.3)


def in_the_sum(evidence: Evidence) -> Cause | None:
    """The same inside of a sum over rows: with g at one row, the sum has one term."""
    for rows, ours, exact in _single_rows(evidence):
        if not (exact.any() and ours.any()):
            continue
        for name, factor in _row_candidates(evidence, rows, exact.shape):
            if evidence.close(ours * factor, exact):
                if _holds_elsewhere(evidence, name, rows, missing=True):
                    return "missing factor", f"the factor {name} is left out inside the sum"
            elif evidence.close(ours, exact * factor) and _holds_elsewhere(
                evidence, name, rows, missing=False
            ):
                return "extra factor", f"the factor {name} is once too often inside the sum"
        break
    return None


def _candidates(evidence: Evidence) -> Iterator[tuple[str, list[Array]]]:
    """Yield (name, its values in the draws looked at) that broadcast to the leaf."""
    shape = evidence.exact.shape
    for path in evidence.names[0]:
        values = [names[path] for names in evidence.names]
        for text, function in _FUNCTIONS.items():
            for form, suffix in _fitting(values[0].shape, shape):
                with np.errstate(all="ignore"):
                    made = [function(v).reshape(form) for v in values]
                if all(np.isfinite(v).all() and v.any() and np.ptp(v) > 0 for v in made):
                    yield text.replace("{}", path) + suffix, made


def _fitting(shape: tuple[int, ...], target: tuple[int, ...]) -> Iterator[tuple[tuple, str]]:
    """Yield the shapes that an array can be given so that it broadcasts to the target."""
    for trial in dict.fromkeys((shape, (*shape, 1))):
        if _broadcasts(trial, target):
            yield trial, ""
    if int(np.prod(shape)) == int(np.prod(target)) and shape != target:
        yield target, ""


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _pattern(evidence: Evidence) -> Cause | None:
    """A ratio that is constant along an axis, whatever it is."""
    ours, exact = evidence.pairs[0]
    if ours.ndim == 0 or not (ours.any() and exact.any()):
        return None
    large = np.abs(ours) > 1e-6 * np.abs(ours).max()
    if not large.all() or not (exact != 0).all():
        return None
    ratio = exact / ours
    for axis in reversed(range(ratio.ndim)):
        if ratio.shape[axis] < 3:
            continue
        spread = np.ptp(ratio, axis=axis)
        if (spread <= 1e-7 * np.abs(ratio).max()).all():
            return "missing factor", (
                f"each slice along axis {axis} is off by a factor of its own "
                f"({ratio.min():.3g} to {ratio.max():.3g}): a factor that is the same along that "
                "axis is left out or wrong"
            )
    return None


def _single_rows(evidence: Evidence) -> Iterator[tuple[tuple[int, ...], Array, Array]]:
    """Yield (index, ours, the truth) for a g that is kept at one row, or at one entry."""
    g = evidence.comparisons[0].g
    if not isinstance(g, np.ndarray) or g.ndim == 0:
        return
    # A leaf of one number sums over everything: then a single entry of g is one term.
    leading = g.shape[:-1] if evidence.exact.ndim else g.shape
    for flat in range(min(int(np.prod(leading)), 6)):
        index = tuple(int(i) for i in np.unravel_index(flat, leading)) if leading else ()
        kept = np.zeros_like(g)
        kept[index] = g[index]
        yield (index, *evidence.response(kept))


def _row_candidates(
    evidence: Evidence, row: tuple[int, ...], shape: tuple[int, ...]
) -> Iterator[tuple[str, Array]]:
    """Yield the named arrays at one row, in the shapes that broadcast to the leaf."""
    for path, whole in evidence.names[0].items():
        for form in (whole, whole.reshape(-1, whole.shape[-1]) if whole.ndim > 1 else whole):
            at_row = _take(form, row, evidence)
            if at_row is None:
                continue
            for text, function in _FUNCTIONS.items():
                with np.errstate(all="ignore"):
                    value = function(at_row)
                if not np.isfinite(value).all() or (value == 1).all():
                    continue
                for trial in dict.fromkeys((*value.shape, *(1,) * extra) for extra in range(3)):
                    if _broadcasts(trial, shape):
                        yield text.replace("{}", path), value.reshape(trial)


def _take(whole: Array, row: tuple[int, ...], evidence: Evidence) -> Array | None:
    """Return what an array has at a row of g; None if it has no such rows."""
    shape = evidence.comparisons[0].g.shape
    leading = shape[: len(row)]
    if row and whole.shape[: len(row)] == leading:
        return whole[row]
    if len(row) == len(shape) and whole.ndim == 1 and whole.shape == shape[-1:]:
        return whole[row[-1]]
    flat = int(np.ravel_multi_index(row, leading)) if row else 0
    if row and whole.ndim and whole.shape[0] == int(np.prod(leading)):
        return whole[flat]
    return None


def _holds_elsewhere(
    evidence: Evidence, name: str, known: tuple[int, ...], *, missing: bool
) -> bool:
    """Tell whether the same factor explains another row too."""
    for row, ours, exact in _single_rows(evidence):
        if row == known or not exact.any():
            continue
        for other, factor in _row_candidates(evidence, row, exact.shape):
            sides = (ours * factor, exact) if missing else (ours, exact * factor)
            if other == name and evidence.close(*sides):
                return True
        return False
    return True
