"""Whether a layer's forward mode is right: ``jvp``, the product of its Jacobian J and a tangent.

For any tangent t and cotangent g

    ⟨g, J·t⟩ = ⟨Jᵀ·g, t⟩

With both drawn from N(0, 1), an error e of J·t makes the two sides differ by ⟨g, e⟩, which is about
as large as e. So one draw is enough, with g in one leaf of y at a time. The right side is that of
the oracle, which needs no second compilation for it, or of the layer's own vjp if there is none.
"""

import math
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array, Tree
from .. import limits
from ..inputs import at, cast, finite, normal_like, same_bits
from ..subject import BrokenLayer, Examination
from .conduct import like_faults

__all__ = ["check_jvp", "tangent_like"]

KEY = (3,)
"""Of the tangents."""

ROUNDING = 64.0
"""Units of rounding that the two sides may always differ by, relative to their terms."""


def check_jvp(examination: Examination, dtype: str) -> None:
    """Look at what ``jvp`` returns, if there is one: its form, its conduct and its numbers."""
    subject = examination.subject
    if not hasattr(subject.layer, "jvp"):
        return
    inputs, _ = cast(examination.draws[0], dtype)
    y, residuals = subject.forward(inputs)
    t = tangent_like(inputs, dtype)
    try:
        t_y = subject.jvp(residuals, t)
        faults = like_faults("y", y, t_y)
        for fault in faults:
            _find(examination, f"jvp: {fault.message}", dtype, fault.leaf)
        if not faults:
            _check_conduct(examination, residuals, t, t_y, dtype)
            for path, _ in pytree.leaves_with_path(y):
                _compare(examination, residuals, y, t, dtype, path)
    except BrokenLayer as error:
        cause = error.__cause__
        if isinstance(cause, AttributeError) and cause.name == "jvp" and not subject.strict:
            subject.notes["jvp was not checked, since a layer inside has none"] = None
        else:
            _find(examination, error.finding.message, dtype)


def tangent_like(inputs: Tree, dtype: str) -> Any:
    """Draw a tangent of (params, x) from N(0, 1), with None for integers."""
    moving = pytree.map(lambda leaf: leaf if leaf.dtype.kind == "f" else None, inputs)
    return cast(normal_like(KEY, moving), dtype)


def _find(examination: Examination, message: str, dtype: str, leaf: str = "") -> None:
    examination.find("jvp", message, leaf=leaf, dtype=dtype, cause="jvp")


def _check_conduct(examination: Examination, residuals: Any, t: Any, t_y: Any, dtype: str) -> None:
    """Require the same bits twice, zero for zero t, and −2 times the result for −2·t."""
    jvp = examination.subject.jvp
    if not same_bits(jvp(residuals, t), t_y):
        message = "a second jvp of the same residuals and t gives other bits"
        _find(examination, message, dtype)
    info = np.finfo(dtype)
    floor = float(info.tiny) / float(info.eps)  # below, scaling is not exact
    for factor, what in ((0.0, "zero t does not give zero"), (-2.0, "jvp is not linear in t")):
        moved = jvp(residuals, pytree.map(lambda leaf, k=factor: leaf * leaf.dtype.type(k), t))
        for path, leaf, scaled in pytree.zip_with_path(t_y, moved):
            counts = np.isfinite(leaf) & ((np.abs(leaf) > floor) | (factor == 0))
            if not np.array_equal(factor * leaf[counts], scaled[counts]):
                _find(examination, f"{what} in {dtype}", dtype, at("y", path))


def _compare(
    examination: Examination, residuals: Any, y: Any, t: Any, dtype: str, path: str
) -> None:
    """Compare ⟨g, J·t⟩ with ⟨Jᵀ·g, t⟩ for a g in one leaf of y; name the tangents at fault."""
    oracle, subject = examination.oracle, examination.subject
    inputs, g = cast(examination.draws[0], dtype)
    g = _only(g, path)
    if oracle.has_float32:
        wide_inputs, wide_g = cast((inputs, g), np.float64)
        exact = oracle.results(wide_inputs, wide_g, "float64", given=dtype)
        pulled = {"params": exact["params"], "x": exact["x"]}
    else:
        pulled = dict(zip(("params", "x"), subject.vjp(residuals, g), strict=True))
    rounding = ROUNDING * float(np.finfo(dtype).eps)
    relative = rounding + 4 * _relative_limit(examination, pulled, dtype)
    least = rounding * limits.norm(finite(_products(g, y)))

    def sides(t: Any) -> tuple[float, float, bool]:
        """Return both sides, and whether they are equal but for rounding."""
        ours = _products(g, subject.jvp(residuals, (t["params"], t["x"])))
        theirs = _products(pulled, t)
        if subject.may_be_non_finite:
            ours, theirs = finite(ours), finite(theirs)
        a, b = float(ours.sum()), float(theirs.sum())
        size = limits.norm(finite(ours)) + limits.norm(finite(theirs))
        return a, b, abs(a - b) <= relative * size + least

    moving = {"params": t[0], "x": t[1]}
    ours, theirs, equal = sides(moving)
    if not equal:
        names = [name for name, _ in pytree.leaves_with_path(moving)]
        wrong = [name for name in names if not sides(_only(moving, name))[2]]
        message = (
            f"jvp is wrong in {dtype} at {at('y', path)} for the tangent of "
            f"{' and '.join(wrong or names)}: ⟨g, jvp⟩ is {ours:.9g} for {theirs:.9g}"
        )
        _find(examination, message, dtype, at("y", path))


def _relative_limit(examination: Examination, pulled: Any, dtype: str) -> float:
    """Return how much the accuracy check allows the gradient to err, relative to its norm."""
    allowed, size = 0.0, 0.0
    for path, d_leaf in pytree.leaves_with_path(pulled):
        leaf, norm = examination.report.leaves.get(path), limits.norm(finite(d_leaf))
        limit = (leaf and getattr(leaf, f"{dtype}_limit")) or 0.0
        allowed, size = math.hypot(allowed, limit * norm), math.hypot(size, norm)
    return allowed / (size or 1.0)


def _products(a: Any, b: Any) -> Array:
    """Return the products of the entries of two trees, in float64."""
    pairs = zip(pytree.leaves(a), pytree.leaves(b), strict=True)
    return np.concatenate([np.ravel(np.float64(x) * y) for x, y in pairs])


def _only(tree: Any, path: str) -> Any:
    """Return the tree with zeros but in one leaf."""
    return pytree.map_with_path(lambda p, leaf: leaf if p == path else leaf * 0, tree)
