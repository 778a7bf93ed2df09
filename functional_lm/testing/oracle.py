"""The oracle: `jax.vjp` of a reference, in float64 or float32."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from .refreshed import refreshed


class JaxOracle:
    """`jax.vjp` of a reference at any inputs of one structure, compiled on first use.

    Args:
        reference: a module with ``forward``, or ``(params, x, **keywords) -> y`` itself, traceable
            by JAX.
        keywords: its keyword-only inputs, closed over as constants.

    Raises:
        ImportError: without jax, naming the extra to install.
        TypeError: for a reference that cannot be called.
    """

    name = "jax.vjp of the reference"
    tolerance = 1e-11
    draws = 8
    has_float32 = True

    def __init__(self, reference: Any, keywords: dict[str, Any]) -> None:
        """Take the reference; nothing is traced yet."""
        try:
            import jax
        except ImportError:
            raise ImportError(
                "checking against a reference needs jax: pip install 'functional-lm[jax]'; "
                "without a reference the checker takes differences and needs none"
            ) from None
        self.jax = jax
        reference = getattr(reference, "forward", reference)
        if not callable(reference):
            raise TypeError(
                f"reference must be a function or have a forward: got {type(reference).__name__}"
            )
        self._reference = reference
        self.keywords = {"float64": keywords, "float32": keywords}
        rounded = pytree.map(_round, keywords)
        if not _equal(rounded, keywords):
            self.keywords["float32"] = rounded
        self.memory: list[Any] = []  # for what a diagnosis makes of the reference, once
        self._compiled: dict[tuple[int | str, str], Callable[..., Any]] = {}

    def function(
        self,
        dtype: str = "float64",
        given: str | None = None,
        keywords: dict[str, Any] | None = None,
    ) -> Callable[[Tree, Any], Any]:
        """Return the reference as a function of ``(params, x)``.

        Args:
            dtype: in which to compute.
            given: "float32" for keywords that were rounded to it.
            keywords: others to use.
        """
        constants = pytree.map(
            lambda leaf: _constant(leaf, dtype), keywords or self.keywords[given or dtype]
        )
        with self.jax.enable_x64(dtype == "float64"):
            reference, constants = refreshed((self._reference, constants))
        return lambda params, x: reference(params, x, **constants)

    def output(self, inputs: tuple[Tree, Any], dtype: str) -> Any:
        """Return zeros like the reference's output, without computing it."""
        return self.output_of(self.function(dtype), inputs, dtype)

    def output_of(self, function: Callable[..., Any], inputs: Any, dtype: str) -> Any:
        """Return zeros like the output of a function of ``(params, x)``."""
        with self.jax.enable_x64(dtype == "float64"):
            y = self.jax.eval_shape(function, *inputs)
        return self.jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), y)

    def results(
        self, inputs: tuple[Tree, Any], g: Any, dtype: str, given: str | None = None
    ) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, as NumPy arrays.

        Integers have the cotangent None.

        Args:
            inputs: ``(params, x)``.
            g: the cotangent of y.
            dtype: in which to compute.
            given: the dtype to which the inputs were rounded, if it is another.
        """
        keywords = self.keywords[given or dtype]
        # One function a dtype: a constant in the keywords is another in the other mode of JAX.
        key: tuple[int | str, str] = (id(keywords), dtype)
        if key not in self._compiled:
            self._compiled[key] = self.jax.jit(self.differentiated(self.function(dtype, given)))
        with self.jax.enable_x64(dtype == "float64"):
            y, cotangents = self._compiled[key](*inputs, g)
        return self.tree(inputs, y, cotangents)

    def results_of(self, key: str, function: Callable[..., Any], inputs: Any, g: Any) -> Tree:
        """Return the float64 results of another function of ``(params, x)``, known by a key."""
        place = (key, "float64")
        if place not in self._compiled:
            self._compiled[place] = self.jax.jit(self.differentiated(function))
        with self.jax.enable_x64(True):
            y, cotangents = self._compiled[place](*inputs, g)
        return self.tree(inputs, y, cotangents)

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of the reference, with the defaults of those not given."""
        try:
            parameters = inspect.signature(self._reference).parameters.values()
        except (TypeError, ValueError):
            parameters = ()  # type: ignore[assignment]
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return defaults | self.keywords["float64"]

    def with_keywords(self, keywords: dict[str, Any]) -> "JaxOracle":
        """Return the oracle of the same reference with some keywords changed."""
        return JaxOracle(self._reference, self.keywords["float64"] | keywords)

    def pushforward(self, inputs: Any, path: str, tangent: Any) -> Any:
        """Return the Jacobian of y with respect to one leaf, times a tangent of that leaf."""
        tree = {"params": inputs[0], "x": inputs[1]}
        leaf = dict(pytree.leaves_with_path(tree))[path]
        function = self.function()

        def of_leaf(value: Any) -> Any:
            moved = pytree.map_with_path(lambda p, x: value if p == path else x, tree)
            return function(moved["params"], moved["x"])

        with self.jax.enable_x64(True):
            return np.asarray(self.jax.jvp(of_leaf, (leaf,), (tangent,))[1])

    def tree(self, inputs: Any, y: Any, cotangents: list[Any]) -> Tree:
        """Put the cotangents of the floating leaves back where their leaves stand."""
        remaining = iter(cotangents)
        d_params, d_x = pytree.map(
            lambda leaf: np.asarray(next(remaining)) if _is_floating(leaf) else None, inputs
        )
        return {"y": self.jax.tree.map(np.asarray, y), "params": d_params, "x": d_x}

    def differentiated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``(params, x, g) -> (y, cotangents of the floating leaves)``."""
        jax = self.jax

        def run(params: Tree, x: Any, g: Any) -> tuple[Any, list[Any]]:
            leaves, structure = jax.tree.flatten((params, x))
            floating = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]

            def of_floating(inputs: list[Any]) -> Any:
                merged = list(leaves)
                for i, leaf in zip(floating, inputs, strict=True):
                    merged[i] = leaf
                return function(*jax.tree.unflatten(structure, merged))

            y, pullback = jax.vjp(of_floating, [leaves[i] for i in floating])
            (cotangents,) = pullback(g)
            return y, cotangents

        return run

    def project(self, results: Tree) -> Tree:
        """Return the results as they are: this oracle knows every entry."""
        return results


def _round(leaf: Array) -> Array:
    """Return floating values rounded to float32, still in their own dtype."""
    return leaf.astype(np.float32).astype(leaf.dtype) if leaf.dtype.kind == "f" else leaf


def _equal(a: Tree, b: Tree) -> bool:
    return all(
        np.array_equal(x, y) for x, y in zip(pytree.leaves(a), pytree.leaves(b), strict=True)
    )


def _constant(leaf: Array, dtype: str) -> Array:
    """Return a copy in the given dtype if floating; of int64 as int32, JAX's without 64 bits."""
    if leaf.dtype.kind == "f":
        return np.array(leaf, dtype)
    return np.array(leaf, np.int32 if leaf.dtype == np.int64 else None)


def _is_floating(leaf: Any) -> bool:
    return leaf.dtype.kind == "f"
