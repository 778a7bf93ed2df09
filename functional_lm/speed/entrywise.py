"""New trees from the entries of others, in several threads where they are large."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from .threads import run

__all__ = ["BLOCK", "CHUNK", "NORM_CHUNK", "SMALL", "entrywise", "global_norm", "square_sums"]

CHUNK = 2**17
"""Entries of a task: with fewer, switching threads costs more than it gains."""

SMALL = 2**20
"""Trees with fewer entries use one thread, for the same reason."""

BLOCK = 2**13
"""Entries whose squares are added at once. A block stays in the L1 cache, and is too short for
OpenBLAS to wake its threads, which would then spin on the cores that the rest of the step needs."""

NORM_CHUNK = 2**19
"""Entries of a leaf whose blocks a task adds; no sum depends on the number of threads."""


def entrywise(function: Callable[..., None], tree: Tree, *rest: Tree, outputs: int = 1) -> Any:
    """Make new trees, entry by entry, from the entries of others.

    ``function(a, b, ..., out, ...)`` gets flat pieces of the leaves and writes to its last
    arguments. Anything but an array in the other trees, such as a boolean, is passed unchanged.

    Args:
        function: as above.
        tree: whose structure, shapes and dtypes the results have.
        rest: others of that structure, with leaves of those shapes.
        outputs: how many trees to make.

    Returns:
        The new tree, or a tuple of them if there are several.

    Raises:
        ValueError: if the trees differ in structure, or their arrays in shape.
    """
    results = [pytree.map(_empty_like, tree) for _ in range(outputs)]
    tasks: list[Callable[[], None]] = []

    def plan(*nodes: Any) -> None:
        flat = [_flat(node, like=nodes[0]) for node in nodes]
        sizes = {np.shape(node) for node in nodes if isinstance(node, np.ndarray)}
        if len(sizes) > 1:
            raise ValueError(
                f"the arrays at one place must have one shape: got {sorted(sizes)}; "
                "build all trees from the same params"
            )
        for start in range(0, flat[0].size, CHUNK):
            piece = slice(start, start + CHUNK)
            parts = [one[piece] if isinstance(one, np.ndarray) else one for one in flat]
            tasks.append(functools.partial(function, *parts))

    pytree.map(plan, tree, *rest, *results)
    run(tasks, None if pytree.count(tree) >= SMALL else 1)
    return results[0] if outputs == 1 else tuple(results)


def global_norm(tree: Tree) -> float:
    """Return the Euclidean norm of all leaves together, accumulated in float64."""
    chunk = NORM_CHUNK
    tasks = []
    for leaf in pytree.leaves(tree):
        flat = np.ravel(leaf)
        for start in range(0, flat.size, chunk):
            tasks.append(functools.partial(square_sums, flat[start : start + chunk]))
    return math.sqrt(sum(map(sum, run(tasks, None if pytree.count(tree) > 2 * chunk else 1))))


def square_sums(flat: Array) -> list[float]:
    """Return the sum of squares of each `BLOCK` of entries, in float64."""
    sums = []
    for start in range(0, flat.size, BLOCK):
        exact = flat[start : start + BLOCK].astype(np.float64)
        sums.append(float(np.vdot(exact, exact)))
    return sums


def _empty_like(leaf: Any) -> Array:
    return np.empty(np.shape(leaf), leaf.dtype)


def _flat(node: Any, like: Any) -> Any:
    """Return an array, or the number in place of one, with one axis; anything else unchanged."""
    if isinstance(node, np.ndarray) or (isinstance(node, np.generic) and np.shape(like) == ()):
        return node.reshape(-1)
    return node
