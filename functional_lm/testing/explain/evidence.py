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
        """Take the leaf; more is computed when it is asked for."""
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
    return size > 0 and float(np.linalg.norm(a - b)) <= tolerance * size


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
    shown = f"{value:.6g}"
    sign = "−" if value < 0 else ""
    for name, known in _candidates(evidence):
        for text, number in ((name, known), (f"1/{_bracket(name)}", 1 / known if known else 0.0)):
            if number and math.isclose(abs(value), number, rel_tol=1e-7):
                return f"{sign}{text}{_places(text, evidence)}" + (
                    "" if sign + text == shown else f" = {shown}"
                )
    return shown


def _bracket(name: str) -> str:
    return name if name[0] == "(" or not any(c in name for c in "·/−") else f"({name})"


def _places(text: str, evidence: Evidence) -> str:
    """Say which axes have the sizes that stand in a text."""
    known = _axes(evidence)
    found = [
        f"{n} is the size of {known[int(n)]}" for n in re.findall(r"\d+", text) if int(n) in known
    ]
    return f" ({', '.join(dict.fromkeys(found))})" if found else ""


def _candidates(evidence: Evidence) -> list[tuple[str, float]]:
    """Return (name, number), the simplest first."""
    small = [(str(i), float(i)) for i in (1, 2, 3, 4)]
    sizes = [(str(size), float(size)) for size in _axes(evidence)]
    roots = [(f"√{name}", math.sqrt(number)) for name, number in sizes]
    products = [(f"{a}·{b}", x * y) for (a, x), (b, y) in itertools.combinations(sizes, 2)] + [
        (f"{a}·{b}·{c}", x * y * z) for (a, x), (b, y), (c, z) in itertools.combinations(sizes, 3)
    ]
    less = [(f"({name} − 1)", number - 1) for name, number in sizes if number > 2]
    ratios = [(f"{a}/{b}", x / y) for (a, x), (b, y) in itertools.permutations(sizes, 2)]
    settings = []
    for path, value in _settings(evidence):
        settings += [(path, value), (f"(1 − {path})", 1 - value), (f"√{path}", abs(value) ** 0.5)]
    doubled = [(f"2·{name}", 2 * number) for name, number in [*sizes, *roots]]
    bessel = [
        (f"({name} − 1)/{name}", (number - 1) / number) for name, number in [*sizes, *products]
    ]
    known = [*small, *sizes, *roots, *settings, *products, *less, *ratios, *doubled, *bessel]
    return [*known, *_FAMILIAR.items()]


def _axes(evidence: Evidence) -> dict[int, str]:
    """Return where each size of an axis first occurs."""
    c = evidence.comparisons[0]
    found: dict[int, str] = {}
    for name, tree in (("x", c.inputs[1]), ("params", c.inputs[0]), ("y", c.g)):
        for path, leaf in pytree.leaves_with_path(tree):
            for axis, size in enumerate(np.shape(leaf)):
                if size > 1:
                    found.setdefault(size, f"axis {axis} of {at(name, path)}")
    return found


def _settings(evidence: Evidence) -> list[tuple[str, float]]:
    found = []
    for name, value in evidence.examination.subject.keywords(np.float64).items():
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fi":
            found.append((name, float(value)))
    return found


def fit(a: Any, b: Any) -> float | None:
    """Return the c for which a ≈ c·b in the sense of least squares; None where b is zero."""
    square = float(np.vdot(b, b))
    return float(np.vdot(b, a)) / square if square > 0 else None
