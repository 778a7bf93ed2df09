"""What is known of one wrong leaf: the truth and the answer at any g; what constants are called."""

import functools
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array
from ..inputs import at
from ..subject import Examination

__all__ = ["Cause", "Evidence", "close", "fit", "leaf_of", "name_constant"]

Cause = tuple[str, str]
"""A key of `report.CAUSES`, and the sentence."""


class Evidence:
    """One wrong leaf of one layer, in float64."""

    def __init__(self, examination: Examination, path: str) -> None:
        self.examination = examination
        self.comparisons = examination.comparisons
        self.path = path
        self.tolerance = max(1e-9, 10 * examination.oracle.tolerance)

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
        return [self.named(c.inputs, c.g) for c in self.comparisons[:2]]

    @functools.cached_property
    def integers(self) -> list[Array]:
        """The integer arrays of the first draw, in inputs, keywords and residuals; no booleans."""
        subject, inputs = self.examination.subject, self.comparisons[0].inputs
        trees = (inputs, subject.keywords(np.float64), subject.forward(inputs)[1])
        return [np.asarray(leaf) for leaf in pytree.leaves(trees) if leaf.dtype.kind in "iu"]

    def named(self, inputs: Any, g: Any) -> dict[str, Array]:
        """Return by name the arrays that a vjp may use at these inputs."""
        y, residuals = self.examination.subject.forward(inputs)
        keywords = self.examination.subject.keywords(np.float64)
        trees = {"params": inputs[0], "x": inputs[1], **keywords}
        trees |= {"residuals": residuals, "y": y, "g": g}
        return {
            at(name, path): np.asarray(leaf, np.float64)
            for name, tree in trees.items()
            for path, leaf in pytree.leaves_with_path(tree)
            if leaf.dtype.kind in "fiub"
        }

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

    def unit_responses(self, g: Any) -> Iterator[tuple[Array, Array]]:
        """Yield (ours, the truth), flat, for a one at each entry of g and zeros elsewhere."""
        for unit in np.eye(g.size):
            ours, exact = self.response(unit.reshape(g.shape))
            yield ours.reshape(-1), exact.reshape(-1)

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
    return 0 < size < math.inf and float(np.linalg.norm(a - b)) <= tolerance * size


_FAMILIAR = {
    "√2": math.sqrt(2),
    "π": math.pi,
    "2π": 2 * math.pi,
    "√(2/π)": math.sqrt(2 / math.pi),
    "√(2π)": math.sqrt(2 * math.pi),
    "ln 2": math.log(2),
}


def name_constant(value: float, evidence: Evidence) -> str:
    """Return the number, and what it is if sizes, settings or small integers explain it."""
    c = evidence.comparisons[0]
    axes: dict[int, str] = {}  # where each size first occurs
    for tree in ({"x": c.inputs[1]}, {"params": c.inputs[0]}, {"y": c.g}):
        for path, leaf in pytree.leaves_with_path(tree):
            for axis, size in enumerate(np.shape(leaf)):
                if size > 1:
                    axes.setdefault(size, f"axis {axis} of {path}")
    settings = {
        name: float(setting)
        for name, setting in evidence.examination.subject.keywords(np.float64).items()
        if np.ndim(setting) == 0 and np.asarray(setting).dtype.kind in "fi"
    }
    shown, sign = f"{value:.6g}", "−" if value < 0 else ""
    for name, number in _constants(list(axes), settings):
        inverse = f"1/({name})" if name[0] != "(" and set(name) & set("·/−") else f"1/{name}"
        for text, known in ((name, number), (inverse, 1 / number if number else 0.0)):
            if known and math.isclose(abs(value), known, rel_tol=1e-7):
                sizes = [n for n in dict.fromkeys(re.findall(r"\d+", text)) if int(n) in axes]
                places = ", ".join(f"{n} is the size of {axes[int(n)]}" for n in sizes)
                called = f"{sign}{text}" + (f" ({places})" if places else "")
                return called if sign + text == shown else f"{called} = {shown}"
    return shown


def _constants(axes: list[int], settings: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Yield (name, number), the simplest first."""
    sizes = [(str(size), float(size)) for size in axes]
    yield from ((str(i), float(i)) for i in (1, 2, 3, 4))
    yield from sizes
    yield from (roots := [(f"√{name}", math.sqrt(n)) for name, n in sizes])
    for name, n in settings.items():
        yield from ((name, n), (f"(1 − {name})", 1 - n), (f"√{name}", abs(n) ** 0.5))
    products = [
        ("·".join(name for name, _ in some), math.prod(n for _, n in some))
        for count in (2, 3)
        for some in itertools.combinations(sizes, count)
    ]
    yield from products
    yield from ((f"({name} − 1)", n - 1) for name, n in sizes if n > 2)
    yield from ((f"{a}/{b}", x / y) for (a, x), (b, y) in itertools.permutations(sizes, 2))
    yield from ((f"2·{name}", 2 * n) for name, n in [*sizes, *roots])
    yield from ((f"({name} − 1)/{name}", (n - 1) / n) for name, n in [*sizes, *products])
    yield from _FAMILIAR.items()


def fit(a: Any, b: Any) -> float | None:
    """Return the c for which a ≈ c·b in the sense of least squares; None where b is zero."""
    square = float(np.vdot(b, b))
    return float(np.vdot(b, a)) / square if square > 0 else None
