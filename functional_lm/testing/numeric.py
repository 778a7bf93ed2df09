"""The oracle without a reference: derivatives of the layer's own forward, in float64."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import prng, pytree
from ..contract import Array, Tree
from .inputs import cast
from .subject import Subject

__all__ = ["NumericOracle"]

STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Of the five-point rule, relative to the size of the leaf; it stops at two that agree."""

COMPLEX_STEP = 1e-30
"""No difference is taken, so it can be tiny."""

ENTRIES = 512
"""Trees up to this size are differentiated entry by entry, larger ones along random directions."""

PROJECTIONS = 8


class NumericOracle:
    """The cotangents of a layer from its own forward, without JAX and without a reference.

    With L = ⟨g, y⟩ and a direction v in one leaf, an entry or a random one, either

        ∂L/∂v = Im L(x + i·h·v)/h                                  the complex step, exact, or
        ∂L/∂v ≈ (L(−2h) − 8·L(−h) + 8·L(h) − L(2h))/12h            five points, good to 1e-9

    The complex step (Squire and Trapp 1998) needs a forward that computes with complex numbers
    and is analytic there; it is tested against the five points.
    """

    draws = 2  # how many inputs are looked at
    has_float32 = False  # whether it can say how inaccurate float32 has to be

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._complex: bool | None = None
        self._directions: dict[str, Array] = {}

    @property
    def name(self) -> str:
        """What the gradients are compared with."""
        kind = "complex steps" if self._complex else "five-point differences"
        return f"{kind} of the layer's own forward"

    @property
    def tolerance(self) -> float:
        """The relative error allowed in float64."""
        return 1e-11 if self._complex else 1e-7

    def with_keywords(self, changes: dict[str, Any]) -> "NumericOracle":
        """Return the oracle with other values of some keywords."""
        keywords = self._subject.keywords(np.float64) | changes
        return NumericOracle(Subject(self._subject.layer, keywords))

    def output(self, inputs: Any, dtype: str) -> Any:
        """Return the layer's own output, in the dtype it should have."""
        return cast(self._subject.forward(inputs)[0], dtype)

    def results(self, inputs: Any, g: Any, dtype: str, given: str | None = None) -> Tree:
        """Return ``{"params", "x"}``, with projections in place of a large leaf."""
        assert dtype == "float64", "never a difference in float32"
        if self._complex is None:
            self._complex = self._computes_with_complex(inputs, g)
        derivative = self._complex_step if self._complex else self._five_points
        tree = {"params": inputs[0], "x": inputs[1]}
        whole = pytree.count(tree) <= ENTRIES
        found: dict[str, Array | None] = {}
        for path, leaf in pytree.leaves_with_path(tree):
            if leaf.dtype.kind != "f":
                found[path] = None
                continue
            directions = self._of(path, leaf, whole or leaf.size <= PROJECTIONS)
            values = [derivative(tree, g, path, v) for v in directions]
            found[path] = np.reshape(values, leaf.shape if len(values) == leaf.size else -1)
        return pytree.map_with_path(lambda path, _: found[path], tree)

    def project(self, results: Tree) -> Tree:
        """Return the results with large leaves replaced by their projections."""

        def one(path: str, leaf: Array) -> Array:
            if path not in self._directions:
                return leaf
            return np.array([np.vdot(v, leaf) for v in self._directions[path]], leaf.dtype)

        return pytree.map_with_path(one, results)

    def _of(self, path: str, leaf: Array, every: bool) -> Any:
        """Return the directions in a leaf: every entry, or a few at random."""
        if every:
            return np.eye(leaf.size).reshape(leaf.size, *leaf.shape)
        if path not in self._directions:
            key = (len(self._directions),)
            self._directions[path] = prng.normal(key, (PROJECTIONS, *leaf.shape), dtype=np.float64)
        return self._directions[path]

    def _objective(self, tree: Tree, g: Any, path: str, v: Array) -> Callable[[Any], Any]:
        def objective(step: Any) -> Any:
            moved = pytree.map_with_path(
                lambda p, x: np.asarray(x + step * v) if p == path else x, tree
            )
            y, _ = self._subject.forward((moved["params"], moved["x"]))
            pairs = zip(pytree.leaves(g), pytree.leaves(y), strict=True)
            # Infinity is a value that some layers declare; it has no slope.
            return sum(np.sum(np.where(np.isfinite(b), a * b, 0)) for a, b in pairs)

        return objective

    def _complex_step(self, tree: Tree, g: Any, path: str, v: Array) -> float:
        return float(np.imag(self._objective(tree, g, path, v)(1j * COMPLEX_STEP)) / COMPLEX_STEP)

    def _five_points(self, tree: Tree, g: Any, path: str, v: Array) -> float:
        """Return the estimate at the step whose estimate agrees best with the one before."""
        objective = self._objective(tree, g, path, v)
        leaf = dict(pytree.leaves_with_path(tree))[path]
        size = (float(np.sqrt(np.mean(np.square(leaf)))) or 1.0) / np.abs(v).max()
        best, gap, before = 0.0, np.inf, np.nan
        for step in STEPS:
            h = step * size
            points = [objective(k * h) for k in (-2, -1, 1, 2)]
            estimate = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * h)
            if abs(estimate - before) < gap:
                best, gap = before if step == STEPS[1] else estimate, abs(estimate - before)
            if gap <= 1e-9 * (abs(best) + 1e-3 * max(map(abs, points))):
                break
            before = estimate
        return float(best)

    def _computes_with_complex(self, inputs: Any, g: Any) -> bool:
        """Tell whether a complex step in every leaf gives what the five points give."""
        tree = {"params": inputs[0], "x": inputs[1]}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # a cast to real
                for i, (path, leaf) in enumerate(pytree.leaves_with_path(tree)):
                    if leaf.dtype.kind == "f" and leaf.size:
                        v = prng.normal((i,), leaf.shape, dtype=np.float64)
                        exact = self._complex_step(tree, g, path, v)
                        near = self._five_points(tree, g, path, v)
                        if not abs(exact - near) <= 1e-6 * (abs(near) + 1e-6):
                            return False
        except Exception:  # whatever a forward that is not made for complex numbers raises
            return False
        return True
