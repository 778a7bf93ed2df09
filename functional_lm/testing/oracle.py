"""The oracle: `jax.vjp` of a reference, in float64 or float32."""

from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Tree


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

    def __init__(self, reference: Any, keywords: dict[str, Any]) -> None:
        """Take the reference; nothing is traced yet."""
        try:
            import jax
        except ImportError:
            raise ImportError(
                "checking against a reference needs jax: pip install 'functional-lm[jax]'"
            ) from None
        self._jax = jax
        forward = getattr(reference, "forward", reference)
        if not callable(forward):
            raise TypeError(
                f"reference must be a function or have a forward: got {type(reference).__name__}"
            )
        constants = pytree.map(_narrow, keywords)
        self._forward = lambda params, x: forward(params, x, **constants)
        self._vjp = jax.jit(self._trace)

    def output(self, inputs: tuple[Tree, Any], dtype: str) -> Any:
        """Return zeros like the reference's output, without computing it."""
        with self._jax.enable_x64(dtype == "float64"):
            y = self._jax.eval_shape(self._forward, *inputs)
        return self._jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), y)

    def results(self, inputs: tuple[Tree, Any], g: Any, dtype: str) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, as NumPy arrays.

        Integers have the cotangent None.
        """
        with self._jax.enable_x64(dtype == "float64"):
            y, cotangents = self._vjp(*inputs, g)
        remaining = iter(cotangents)
        d_params, d_x = pytree.map(
            lambda leaf: np.asarray(next(remaining)) if _is_floating(leaf) else None, inputs
        )
        return {"y": self._jax.tree.map(np.asarray, y), "params": d_params, "x": d_x}

    def _trace(self, params: Tree, x: Any, g: Any) -> tuple[Any, list[Any]]:
        """Differentiate with respect to the floating leaves only."""
        jax = self._jax
        leaves, structure = jax.tree.flatten((params, x))
        floating = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]

        def function(inputs: list[Any]) -> Any:
            merged = list(leaves)
            for i, leaf in zip(floating, inputs, strict=True):
                merged[i] = leaf
            return self._forward(*jax.tree.unflatten(structure, merged))

        y, pullback = jax.vjp(function, [leaves[i] for i in floating])
        (cotangents,) = pullback(g)
        return y, cotangents


def _narrow(leaf: Array) -> Array:
    """Return int64 as int32, all that JAX has while its 64-bit mode is off."""
    return leaf.astype(np.int32) if leaf.dtype == np.int64 else leaf


def _is_floating(leaf: Any) -> bool:
    return leaf.dtype.kind == "f"
