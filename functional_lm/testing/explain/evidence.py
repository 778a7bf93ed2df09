"""What is known of one wrong leaf: the truth and the layer's answer, at any g one likes."""

import functools
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array
from ..examination import Comparison, Examination
from ..inputs import at


class Evidence:
    """One wrong leaf of one layer, in float64."""

    def __init__(self, examination: Examination, path: str) -> None:
        """Take the leaf; more is computed when it is asked for."""
        self.examination = examination
        self.path = path
        self.tolerance = max(1e-9, 10 * examination.oracle.tolerance)

    @property
    def comparisons(self) -> list[Comparison]:
        """The draws."""
        return self.examination.comparisons

    @functools.cached_property
    def pairs(self) -> list[tuple[Array, Array]]:
        """(ours, the truth) of every draw."""
        project = self.examination.oracle.project
        return [
            (leaf_of(project(c.ours), self.path), leaf_of(c.exact, self.path))
            for c in self.comparisons
        ]

    @property
    def ours(self) -> Array:
        """The layer's answer in the first draw."""
        return self.pairs[0][0]

    @property
    def exact(self) -> Array:
        """The truth in the first draw."""
        return self.pairs[0][1]

    @functools.cached_property
    def is_whole(self) -> bool:
        """Whether every entry is known, not projections of them only."""
        first = self.comparisons[0]
        given = {"params": first.inputs[0], "x": first.inputs[1], "y": first.g}
        return self.exact.shape == leaf_of(given, self.path).shape

    @functools.cached_property
    def names(self) -> list[dict[str, Array]]:
        """For the first two draws, the arrays that have a name."""
        found = []
        for c in self.comparisons[:2]:
            y, residuals = self.examination.subject.forward(c.inputs)
            trees = {
                "params": c.inputs[0],
                "x": c.inputs[1],
                "keyword": self.examination.subject.keywords(np.float64),
                "residuals": residuals,
                "y": y,
                "g": c.g,
            }
            found.append(
                {
                    at(name, path).removeprefix("keyword."): np.asarray(leaf, np.float64)
                    for name, tree in trees.items()
                    for path, leaf in pytree.leaves_with_path(tree)
                    if np.asarray(leaf).dtype.kind in "fiub"
                }
            )
        return found

    def close(self, a: Any, b: Any) -> bool:
        """Tell whether two arrays are equal within rounding, and not both nothing."""
        return close(a, b, self.tolerance)

    def always(self, relation: Any) -> bool:
        """Tell whether ours is ``relation(truth)`` within rounding in every draw."""
        return all(self.close(ours, relation(exact)) for ours, exact in self.pairs)

    def response(self, g: Any) -> tuple[Array, Array]:
        """Return (ours, the truth) of the leaf at the first inputs and another g."""
        inputs = self.comparisons[0].inputs
        ours = self.examination.subject.results(inputs, g)
        exact = self.examination.oracle.results(inputs, g, "float64")
        project = self.examination.oracle.project
        return leaf_of(project(ours), self.path), leaf_of(exact, self.path)

    @functools.cached_property
    def responses(self) -> dict[tuple[int, int], tuple[Array, Array]]:
        """(ours, the truth) with g kept at one index of one axis only, by (axis, index)."""
        g = self.comparisons[0].g
        if not isinstance(g, np.ndarray) or g.ndim == 0:
            return {}
        found = {}
        for axis in range(g.ndim):
            if 1 < g.shape[axis] <= 32:
                for index in range(g.shape[axis]):
                    kept = np.zeros_like(g)
                    where = (slice(None),) * axis + (index,)
                    kept[where] = g[where]
                    found[axis, index] = self.response(kept)
        return found


def leaf_of(tree: Any, path: str) -> Array:
    """Return the leaf at a path."""
    return dict(pytree.leaves_with_path(tree))[path]


def close(a: Any, b: Any, tolerance: float) -> bool:
    """Tell whether two arrays have one shape and are equal within rounding, and not both zero."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    size = float(np.linalg.norm(a) + np.linalg.norm(b))
    return size > 0 and float(np.linalg.norm(a - b)) <= tolerance * size
