"""Signatures of an entrywise factor that is left out or stands there too often."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ...contract import Array
from ..inputs import scaled
from ..subject import BrokenLayer
from .evidence import Cause, Evidence, fit, leaf_of, name_constant

__all__ = [
    "FUNCTIONS",
    "constant_in_part",
    "entrywise",
    "fitting",
    "in_the_sum",
    "is_mask",
    "of_another",
    "pattern",
]

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
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


class _View(NamedTuple):
    """Two answers to one g, and the arrays that may be a factor between them."""

    ours: Array
    exact: Array
    names: dict[str, Array]


def entrywise(evidence: Evidence) -> Cause | None:
    """The truth times or over an array that has a name, entry by entry."""
    draws = zip(evidence.pairs, evidence.names, strict=False)
    views = [_View(*pair, names) for pair, names in draws]
    return _factor(evidence, views, "")


def in_the_sum(evidence: Evidence) -> Cause | None:
    """The same inside of a sum over rows: with g at one row, the sum has one term."""
    views = [view for view in _single_rows(evidence) if view.ours.any() and view.exact.any()][:2]
    return _factor(evidence, views, " inside the sum") if views else None


def of_another(evidence: Evidence) -> Cause | None:
    """The slope is the right function, of another array than it should be."""
    target = evidence.exact.shape
    if any(getattr(c.g, "shape", None) != target for c in evidence.comparisons):
        return None
    for text, function in FUNCTIONS.items():
        mine, true = (
            [name for name in evidence.names[0] if _is_slope(evidence, side, function, name)]
            for side in (0, 1)
        )
        if mine and true:
            cause = "misread" if text == "{}" else "wrong point"
            slope = text.replace("{}", mine[0])
            return cause, f"the slope is {slope}, and should be {text.replace('{}', true[0])}"
    return None


def _is_slope(evidence: Evidence, side: int, function: Callable[[Array], Array], name: str) -> bool:
    """Tell whether ours (side 0), or the truth, is g times a function of a named array."""
    for pair, names in zip(evidence.pairs, evidence.names, strict=False):
        if name == "g" or names[name].shape != pair[side].shape or np.ptp(names[name]) == 0:
            return False
        with np.errstate(all="ignore"):
            if not evidence.close(pair[side], function(names[name]) * names["g"]):
                return False
    return True


def constant_in_part(evidence: Evidence) -> Cause | None:
    """Some slices are the truth times one number, and the others are right."""
    ours, exact = evidence.pairs[0]
    for axis in range(exact.ndim):
        parts = [np.moveaxis(a, axis, 0).reshape(exact.shape[axis], -1) for a in (ours, exact)]
        wrong = [
            i
            for i, pair in enumerate(zip(*parts, strict=True))
            if not np.allclose(pair[0], pair[1], rtol=1e-8)
        ]
        if not 0 < len(wrong) < exact.shape[axis] or not exact.take(wrong, axis).any():
            continue
        factor = fit(ours.take(wrong, axis), exact.take(wrong, axis)) or 0.0
        shape = [-1 if a == axis else 1 for a in range(exact.ndim)]
        factors = np.where(np.isin(np.arange(exact.shape[axis]), wrong), factor, 1.0).reshape(shape)
        if abs(factor) > 1e-6 and exact.size > 2 and evidence.always(lambda t, f=factors: t * f):
            cause = "sign" if abs(factor + 1) < 1e-7 else "constant factor"
            listed = ", ".join(map(str, wrong[:8]))
            return cause, (
                f"index {listed} of axis {axis} (size {exact.shape[axis]}) is "
                f"{name_constant(factor, evidence)} times what it should be; the others are right"
            )
    return None


def _factor(evidence: Evidence, views: list[_View], where: str) -> Cause | None:
    for name, path, factors in _candidates(views):
        rows = list(zip(views, factors, strict=True))
        if all(evidence.close(view.ours * f, view.exact) for view, f in rows):
            cause = "mask leak" if is_mask(factors[0]) else "missing factor"
            return cause, f"the factor {name} is left out{where}"
        if all(evidence.close(view.ours, view.exact * f) for view, f in rows):
            if name == path and not where and _divides(evidence, path):
                return "missing factor", f"the factor 1/{name} is left out"
            return "extra factor", f"the factor {name} is applied once too often{where}"
    return None


def is_mask(array: Array) -> bool:
    """Tell whether an array is zero in places and one number in all others."""
    kept = array[array != 0]
    return bool(0 < kept.size < array.size and np.ptp(kept) <= 1e-9 * abs(kept[0]))


def _candidates(views: list[_View]) -> Iterator[tuple[str, str, list[Array]]]:
    """Yield (name, path, its values in each view) of what is not constant and broadcasts."""
    target = views[0].exact.shape
    for path, (text, function) in itertools.product(views[0].names, FUNCTIONS.items()):
        with np.errstate(all="ignore"):
            values = [function(view.names[path]) for view in views]
        usable = all(np.isfinite(v).all() and v.any() for v in values)
        if not usable or all((v == values[0].flat[0]).all() for v in values):
            continue
        for shape in fitting(values[0].shape, target):
            yield text.replace("{}", path), path, [v.reshape(shape) for v in values]


def fitting(shape: tuple[int, ...], target: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shapes that an array can be given so that it broadcasts to the target."""
    for trial in ((*shape, *(1,) * extra) for extra in range(3)):
        try:
            if np.broadcast_shapes(trial, target) == target:
                yield trial
        except ValueError:
            continue
    if int(np.prod(shape)) == int(np.prod(target)) and shape != target:
        yield target


def _divides(evidence: Evidence, name: str) -> bool:
    """Tell whether the true gradient is divided by an array, going by how both grow with x.

    With a(c·x) ~ cᵃ and the truth ~ cᵇ, a power b/a below zero says so.
    """
    c = evidence.comparisons[0]
    if name.startswith("params"):
        return False
    double = (c.inputs[0], scaled(c.inputs[1], 2.0))
    try:
        array = evidence.named(double, c.g).get(name)
        truth = leaf_of(evidence.examination.oracle.results(double, c.g, "float64"), evidence.path)
    except BrokenLayer:
        return False
    if array is None or not truth.any() or not array.any():
        return False
    growth = np.log2(np.linalg.norm(array) / np.linalg.norm(evidence.names[0][name]))
    power = np.log2(np.linalg.norm(truth) / np.linalg.norm(evidence.exact))
    return bool(abs(growth) > 0.3 and power / growth < -0.3)


def pattern(evidence: Evidence) -> Cause | None:
    """A ratio that is constant along an axis, whatever it is."""
    ours, exact = evidence.pairs[0]
    size = np.abs(ours).max(initial=0.0)
    if ours.ndim == 0 or not (np.abs(ours) > 1e-6 * size).all() or not (exact != 0).all():
        return None
    ratio = exact / ours
    for axis in reversed(range(ratio.ndim)):
        spread = np.ptp(ratio, axis=axis)
        if ratio.shape[axis] >= 3 and (spread <= 1e-7 * np.abs(ratio).max()).all():
            return "missing factor", (
                f"each slice along axis {axis} is off by a factor of its own "
                f"({ratio.min():.3g} to {ratio.max():.3g}): a factor that is the same along that "
                "axis is left out or wrong"
            )
    return None


def _single_rows(evidence: Evidence) -> Iterator[_View]:
    """Yield what comes of a g that is kept at one row, or at one entry, with the names there."""
    g = evidence.comparisons[0].g
    if not isinstance(g, np.ndarray) or g.ndim == 0:
        return
    # A leaf of one number sums over everything: then a single entry of g is one term.
    leading = g.shape[:-1] if evidence.exact.ndim else g.shape
    for row in itertools.islice(np.ndindex(leading), 6):
        kept = np.zeros_like(g)
        kept[row] = g[row]
        arrays = {path: _take(a, row, g.shape) for path, a in evidence.names[0].items()}
        names = {path: a for path, a in arrays.items() if a is not None}
        yield _View(*evidence.response(kept), names)


def _take(whole: Array, row: tuple[int, ...], shape: tuple[int, ...]) -> Array | None:
    """Return what an array has at a row of g; None if it has no such rows."""
    leading = shape[: len(row)]
    if row and whole.shape[: len(row)] == leading:
        return np.asarray(whole[row])
    if len(row) == len(shape) and whole.ndim == 1 and whole.shape == shape[-1:]:
        return np.asarray(whole[row[-1]])
    rows = whole.reshape(-1, whole.shape[-1]) if whole.ndim > 1 else whole
    if row and whole.ndim and len(rows) == int(np.prod(leading)):
        return np.asarray(rows[np.ravel_multi_index(row, leading)])
    return None
