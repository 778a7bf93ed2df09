"""Random inputs for the cases."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import prng, pytree
from ...contract import Array, Tree

Inputs = Iterator[tuple[str, Tree, Any, dict[str, Any]]]
"""What a function that makes cases yields: label, params, x, keywords."""

LEADING = {"primes": (2, 3), "T=1": (2, 1), "B=0": (0, 3), "one row": ()}
"""Leading axes of an input, by label."""


class Draws:
    """Random inputs, each from a key of its own."""

    def __init__(self, key: tuple[int, ...]) -> None:
        """Start counting the keys."""
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
