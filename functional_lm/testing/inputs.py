"""Inputs for a check: casts, draws, layouts."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import prng, pytree
from ..contract import Array, Key, Tree, did_you_mean

__all__ = [
    "LAYOUTS",
    "as_arrays",
    "at",
    "cast",
    "did_you_mean",
    "finite",
    "freeze",
    "jitter",
    "keywords_of",
    "normal_like",
    "same_bits",
    "scaled",
    "stretched",
]


def as_arrays(tree: Tree, *, lists: bool = True) -> Tree:
    """Convert the arrays of other libraries, and lists of numbers unless ``lists`` is False."""
    if hasattr(tree, "__array__") and not isinstance(tree, type):
        return np.asarray(tree.detach() if hasattr(tree, "detach") else tree)  # PyTorch's
    if lists and _is_numbers(tree):
        try:
            return np.array(tree)
        except ValueError:
            raise ValueError(
                f"rows of a list must have one length: got {tree!r}; pass an array"
            ) from None
    if isinstance(tree, dict):
        return {name: as_arrays(child, lists=lists) for name, child in tree.items()}
    if isinstance(tree, (list, tuple)):
        children = [as_arrays(child, lists=lists) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return tree


def _is_numbers(value: Any) -> bool:
    """Tell whether a value is a list of numbers, or of such lists."""
    if not isinstance(value, list) or not value:
        return False
    return all(type(item) in (bool, int, float) or _is_numbers(item) for item in value)


def keywords_of(layer: Any) -> list[str] | None:
    """Return the keyword-only inputs that ``forward`` names; None if it may take any."""
    known = getattr(layer, "forward_keywords", None)
    if known is not None:
        return sorted(known)
    try:
        parameters = list(inspect.signature(layer.forward).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters[2:]]


def cast(tree: Tree, dtype: Any) -> Tree:
    """Return fresh C-contiguous copies, the floating leaves in the given dtype."""
    return pytree.map(
        lambda leaf: np.array(leaf, dtype if leaf.dtype.kind == "f" else None, order="C"), tree
    )


def normal_like(key: Key, tree: Tree) -> Tree:
    """Draw N(0, 1) float64 in the shapes of the leaves."""
    index = iter(range(len(pytree.leaves(tree))))
    return pytree.map(
        lambda leaf: prng.normal((*key, next(index)), leaf.shape, dtype=np.float64), tree
    )


def jitter(key: Key, tree: Tree, spread: float = 0.1) -> Tree:
    """Multiply every floating entry by its own factor between 1 − spread and 1 + spread.

    This redraws the rounding errors and keeps what the values stand for: signs, zeros, scale.
    """
    index = iter(range(len(pytree.leaves(tree))))

    def one(leaf: Array) -> Array:
        if leaf.dtype.kind != "f":
            return leaf
        factor = (1 - spread) + 2 * spread * prng.uniform((*key, next(index)), leaf.shape)
        return np.asarray(leaf * factor.astype(leaf.dtype))

    return pytree.map(one, tree)


def stretched(key: Key, leaf: Array) -> Array:
    """Return the leaf with each entry times a positive number of its own; zeros are drawn anew."""
    if leaf.dtype.kind != "f":
        return leaf
    if not leaf.any():
        return 0.5 * prng.normal(key, leaf.shape, dtype=np.float64)
    return leaf * np.exp(0.4 * prng.normal(key, leaf.shape, dtype=np.float64))


def scaled(tree: Tree, factor: float) -> Tree:
    """Multiply the floating leaves by a number."""
    return pytree.map(
        lambda leaf: np.asarray(leaf * factor) if leaf.dtype.kind == "f" else leaf, tree
    )


def freeze(tree: Tree) -> Tree:
    """Make every array of a tree read-only, in place, and return the tree."""
    for leaf in pytree.leaves(tree):
        if isinstance(leaf, np.ndarray):
            leaf.flags.writeable = False
    return tree


def same_bits(a: Tree, b: Tree) -> bool:
    """Tell whether the leaves of two trees of one structure are equal to the last bit."""
    pairs = zip(pytree.leaves(a), pytree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def at(name: str, path: str) -> str:
    """Return the name of a leaf: that of its tree, and its path in there if it has one."""
    return f"{name}.{path}" if path else name


def finite(leaf: Any) -> Any:
    """Return the leaf with zeros where it is not finite, for the size of what is left."""
    return np.where(np.isfinite(leaf), leaf, 0.0)


def _strided(x: Array) -> Array:
    """Return the values of x in every second place of a larger array."""
    return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x


def _reversed(x: Array) -> Array:
    """Return the values of x with negative strides."""
    if x.ndim == 0:
        return x
    flip = (slice(None, None, -1),) * x.ndim
    return x[flip].copy()[flip]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran-ordered": lambda x: np.array(x, order="F"),
    "strided": _strided,
    "reversed": _reversed,
}
"""Ways to hold the same values in memory; a layer must not care."""
