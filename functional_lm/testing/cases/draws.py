"""Random inputs of a layer at given sizes."""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import prng, pytree
from ...contract import Array, Tree

__all__ = [
    "BATCHES",
    "HEADS",
    "ROWS",
    "Cases",
    "Draws",
    "Inputs",
    "Layers",
    "Maker",
    "entrywise",
    "entrywise_cases",
]

Inputs = tuple[Tree, Any, dict[str, Any]]
"""What a layer is called with: params, x, keywords."""

Cases = dict[str, Inputs]
"""By label."""

BATCHES: dict[str, tuple[int, ...]] = {"primes": (2, 3), "T=1": (2, 1), "B=0": (0, 3)}
HEADS: dict[str, tuple[int, ...]] = {"H=6 G=2": (3, 5), "T=1": (2, 1), "B=0": (0, 5)}
ROWS = BATCHES | {"one row": ()}
"""Leading axes of an input, by label."""


class Draws:
    """Random inputs, each from a key of its own."""

    def __init__(self, key: tuple[int, ...]) -> None:
        self._key = key
        self._count = itertools.count()

    def key(self) -> tuple[int, ...]:
        """Return the next key."""
        return (*self._key, next(self._count))

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Draw N(0, scale²)."""
        return prng.normal(self.key(), shape, scale=scale, dtype=np.float64)

    def integers(self, *shape: int, below: int) -> Array:
        """Draw from [0, below)."""
        return prng.integers(self.key(), shape, low=0, high=below)

    def near(self, tree: Tree, scale: float = 0.3) -> Tree:
        """Move every leaf, so that no scale stays at one."""
        return pytree.map(lambda leaf: leaf + self.normal(*leaf.shape, scale=scale), tree)


class Maker:
    """Makes inputs of one layer by a function ``(draw, module, leading, *sizes, **options)``.

    Keywords that are no options of that function are keywords of the layer; the fields of a
    ``Visibility`` may be given one by one.
    """

    def __init__(self, draw: Draws, module: Any, function: Callable[..., Inputs]) -> None:
        self._draw, self._module, self._function = draw, module, function
        self.seen = set(getattr(getattr(module, "Visibility", None), "_fields", ()))

    def __call__(self, leading: tuple[int, ...], *sizes: int, **keywords: Any) -> Inputs:
        """Draw inputs whose first axes are ``leading``; ``scale`` and ``far`` from zero move x."""
        scale, far = keywords.pop("scale", 1.0), keywords.pop("far", 0.0)
        known = inspect.signature(self._function).parameters
        options = {k: keywords.pop(k) for k in list(keywords) if k in known}
        params, x, side = self._function(self._draw, self._module, leading, *sizes, **options)
        if (scale, far) != (1.0, 0.0):
            x = pytree.map(lambda leaf: leaf * scale + far, x)
        seen = {k: keywords.pop(k) for k in list(keywords) if k in self.seen}
        if seen:
            side = side | {"visibility": self._module.Visibility(**seen)}
        return params, x, side | keywords

    def each(self, axes: dict[str, tuple[int, ...]], *sizes: int, **keywords: Any) -> Cases:
        """Draw inputs for each of several leading axes, by label."""
        return {label: self(leading, *sizes, **keywords) for label, leading in axes.items()}


Layers = dict[str, tuple[str, Callable[..., Inputs], Callable[[Draws, Maker], Cases]]]
"""By name: the letters of the sizes behind B and T, the function that makes inputs, the cases."""


def entrywise(draw: Draws, _: Any, leading: Any, D: int) -> Inputs:
    """Draw x for a layer without parameters."""
    return {}, draw.normal(*leading, D), {}


def entrywise_cases(draw: Draws, make: Maker) -> Cases:
    """Return the inputs of a function of single numbers."""
    return {
        **make.each(ROWS, 7),
        "large x": make((31,), 13, scale=30.0),
        "small x": make((3,), 13, scale=1e-3),
    }
