"""The oracle: `jax.vjp` of a reference, or a reference with a backward pass of its own."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Differentiable, Tree, is_floating
from .inputs import cast, same_bits

__all__ = ["SOON", "JaxOracle", "LayerOracle"]

SOON = {"xla_backend_optimization_level": 0}
"""Options for what runs a few times: compiled in half the time."""


class JaxOracle:
    """`jax.vjp` of a reference at any inputs of one structure, compiled once for each shape.

    Args:
        reference: a module with ``forward``, or ``(params, x, **keywords) -> y`` itself, traceable
            by JAX.
        keywords: its keyword-only inputs, closed over as constants.
        holds_arrays: whether the reference may close over arrays of its own; see `tracing`.

    Raises:
        ImportError: without jax, naming the extra to install.
        TypeError: for a reference that cannot be called.
    """

    name = "jax.vjp of the reference"
    tolerance = 1e-11
    draws = 8
    has_float32 = True

    def __init__(
        self, reference: Any, keywords: dict[str, Any], *, holds_arrays: bool = True
    ) -> None:
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
        self._reference, self._holds_arrays = reference, holds_arrays
        rounded = pytree.map(_round, keywords)
        same = same_bits(rounded, keywords)  # then one compiled function is enough
        self.keywords = {"float64": keywords, "float32": keywords if same else rounded}
        self.memory: dict[str, Any] = {}  # what a diagnosis makes of the reference, once
        self._compiled: dict[Any, Any] = {}

    def with_keywords(self, changes: dict[str, Any]) -> "JaxOracle":
        """Return a fresh oracle with other values of some keywords."""
        keywords = self.keywords["float64"] | changes
        return JaxOracle(self._reference, keywords, holds_arrays=self._holds_arrays)

    def visit(self, params: Tree, x: Any) -> None:
        """Run the reference with no arrays computed, at params and x as they are."""
        with self.tracing("float64"):
            self.jax.eval_shape(lambda: self.function()(params, x))

    def traced(self, inputs: tuple[Tree, Any]) -> str:
        """Return the operations of the reference as text."""
        with self.tracing("float64"):
            return str(self.jax.make_jaxpr(self.function())(*inputs))

    def function(
        self, dtype: str = "float64", keywords: dict[str, Any] | None = None
    ) -> Callable[[Tree, Any], Any]:
        """Return the reference as a function of ``(params, x)``, with keywords in a dtype."""
        keywords = self.keywords[dtype] if keywords is None else keywords
        constants = pytree.map(lambda leaf: _constant(leaf, dtype), keywords)
        return lambda params, x: self._reference(params, x, **constants)

    @contextlib.contextmanager
    def tracing(self, dtype: str) -> Iterator[None]:
        """Trace with the precision of a dtype.

        JAX casts a NumPy array that a function closes over to the current precision, and remembers
        the result for every precision. So its memory is cleared before and after a trace in
        another precision than that of the process, if the reference may hold such arrays: those
        of the keywords are copies. It warns of its own 64-bit arrays with 32 bits;
        they are cast just the same.
        """
        double = dtype == "float64"
        other = double != self.jax.config.jax_enable_x64
        forget = self.jax.clear_caches if other and self._holds_arrays else lambda: None
        forget()
        try:
            with self.jax.enable_x64(double), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
                yield
        finally:
            forget()

    def compiled(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        dtype: str,
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Compile a function for the shapes of these arguments, with options of XLA."""
        with self.tracing(dtype):
            return self.jax.jit(function).lower(*arguments).compile(compiler_options=options)

    def half_results(self, inputs: tuple[Tree, Any], g: Any, dtype: str) -> Tree:
        """Return the results as computed in half precision, every operation rounded."""
        options = {"xla_allow_excess_precision": False}
        return self.results(inputs, g, dtype, keywords=self.keywords["float64"], options=options)

    def output(
        self, inputs: tuple[Tree, Any], dtype: str, keywords: dict[str, Any] | None = None
    ) -> Any:
        """Return zeros like the reference's output, without computing it."""
        with self.tracing(dtype):
            y = self.jax.eval_shape(self.function(dtype, keywords), *inputs)
        return self.jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), y)

    def results(
        self,
        inputs: tuple[Tree, Any],
        g: Any,
        dtype: str,
        *,
        given: str | None = None,
        keywords: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, None for integers.

        ``dtype`` is that of the computation, ``given`` that of the inputs if it is another, and
        ``options`` are those of XLA.
        """
        keywords = self.keywords[given or dtype] if keywords is None else keywords
        key = (id(keywords), dtype, *(np.shape(leaf) for leaf in pytree.leaves((inputs, g))))
        if key not in self._compiled:
            run = self.differentiated(self.function(dtype, keywords))
            compiled = self.compiled(run, *inputs, g, dtype=dtype, options=options)
            self._compiled[key] = compiled, keywords
        with self.jax.enable_x64(dtype == "float64"):
            y, cotangents = self._compiled[key][0](*inputs, g)
        remaining = iter(cotangents)
        d_params, d_x = pytree.map(
            lambda leaf: np.asarray(next(remaining)) if is_floating(leaf) else None, inputs
        )
        return {"y": self.jax.tree.map(np.asarray, y), "params": d_params, "x": d_x}

    def swept(self, arrays: dict[str, Any], inputs: tuple[Tree, Any], g: Any) -> list[Any]:
        """Return the cotangents of the floating leaves for other values of array keywords.

        All values share one compiled function, so the reference must not need to know them.
        """
        rest = {k: v for k, v in self.keywords["float64"].items() if k not in arrays}
        constants = pytree.map(lambda leaf: _constant(leaf, "float64"), rest)

        def run(arrays: Any, params: Tree, x: Any, g: Any) -> Any:
            def function(params: Tree, x: Any) -> Any:
                return self._reference(params, x, **constants, **arrays)

            return self.differentiated(function)(params, x, g)[1]

        if "swept" not in self.memory:
            self.memory["swept"] = None  # if it needs them
            compiled = self.compiled(run, arrays, *inputs, g, dtype="float64", options=SOON)
            self.memory["swept"] = compiled
        if self.memory["swept"] is None:
            raise ValueError("the reference computes with the values of its keywords")
        with self.jax.enable_x64(True):
            return [np.asarray(leaf) for leaf in self.memory["swept"](arrays, *inputs, g)]

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of the reference, with the defaults of those not given."""
        try:
            parameters = inspect.signature(self._reference).parameters.values()
        except (TypeError, ValueError):
            parameters = ()  # type: ignore[assignment]
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return defaults | self.keywords["float64"]

    def pushforward(self, inputs: Any, path: str, tangent: Any) -> Any:
        """Return the Jacobian of y with respect to one leaf, times a tangent of that leaf."""
        tree = {"params": inputs[0], "x": inputs[1]}
        leaf = dict(pytree.leaves_with_path(tree))[path]
        function = self.function()

        def of_leaf(value: Any) -> Any:
            moved = pytree.map_with_path(lambda p, x: value if p == path else x, tree)
            return function(moved["params"], moved["x"])

        with self.tracing("float64"):
            return np.asarray(self.jax.jvp(of_leaf, (leaf,), (tangent,))[1])

    def differentiated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``(params, x, g) -> (y, cotangents of the floating leaves)``."""
        jax = self.jax

        def run(params: Tree, x: Any, g: Any) -> tuple[Any, list[Any]]:
            leaves, structure = jax.tree.flatten((params, x))
            floating = [i for i, leaf in enumerate(leaves) if is_floating(leaf)]

            def of_floating(inputs: list[Any]) -> Any:
                merged = list(leaves)
                for i, leaf in zip(floating, inputs, strict=True):
                    merged[i] = leaf
                return function(*jax.tree.unflatten(structure, merged))

            y, pullback = jax.vjp(of_floating, [leaves[i] for i in floating])
            # In half precision a reference may return float32.
            (cotangents,) = pullback(jax.tree.map(lambda a, b: b.astype(a.dtype), y, g))
            return y, cotangents

        return run

    def project(self, results: Tree) -> Tree:
        """Return the results as they are: this oracle knows every entry."""
        return results


class LayerOracle:
    """The ``forward`` and ``vjp`` of a layer that is known to be right.

    Such as `interop.from_torch` of a plain function, whose backward is that of PyTorch's autograd.

    Args:
        layer: the reference.
        keywords: its keyword-only inputs.
    """

    tolerance = 1e-11
    draws = 8
    has_float32 = True

    def __init__(self, layer: Differentiable, keywords: dict[str, Any]) -> None:
        self._layer = layer
        self.keywords = {"float64": keywords, "float32": keywords}
        self.name = f"the vjp of {getattr(layer, '__name__', type(layer).__name__)}"

    def with_keywords(self, changes: dict[str, Any]) -> "LayerOracle":
        """Return the oracle with other values of some keywords."""
        return LayerOracle(self._layer, self.keywords["float64"] | changes)

    def output(
        self, inputs: tuple[Tree, Any], dtype: str, keywords: dict[str, Any] | None = None
    ) -> Any:
        """Return zeros like the reference's output."""
        keywords = self.keywords[dtype] if keywords is None else keywords
        y, _ = self._layer.forward(*cast(inputs, dtype), **cast(keywords, dtype))
        return pytree.map(np.zeros_like, y)

    def results(
        self,
        inputs: tuple[Tree, Any],
        g: Any,
        dtype: str,
        *,
        given: str | None = None,
        keywords: dict[str, Any] | None = None,
    ) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, None for integers."""
        keywords = self.keywords[given or dtype] if keywords is None else keywords
        y, residuals = self._layer.forward(*cast(inputs, dtype), **cast(keywords, dtype))
        d_params, d_x = self._layer.vjp(residuals, cast(g, dtype))
        return {"y": y, "params": d_params, "x": d_x}

    def half_results(self, inputs: tuple[Tree, Any], g: Any, dtype: str) -> Tree:
        """Return the results as the reference computes them in half precision."""
        keywords = pytree.map(
            lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, self.keywords["float64"]
        )
        y, residuals = self._layer.forward(*inputs, **keywords)
        d_params, d_x = self._layer.vjp(residuals, g)
        return {"y": y, "params": d_params, "x": d_x}

    def project(self, results: Tree) -> Tree:
        """Return the results as they are: this oracle knows every entry."""
        return results


def _round(leaf: Array) -> Array:
    """Return floating values rounded to float32, still in their own dtype."""
    return leaf.astype(np.float32).astype(leaf.dtype) if leaf.dtype.kind == "f" else leaf


def _constant(leaf: Array, dtype: str) -> Array:
    """Return a copy in the given dtype if floating; of int64 as int32, JAX's without 64 bits."""
    if leaf.dtype.kind == "f":
        return np.array(leaf, dtype)
    return np.array(leaf, np.int32 if leaf.dtype == np.int64 else None)
