"""A short causal convolution of a whole text, each channel for itself.

Forward: `causal_convolution` behind a past of zeros. ``vjp`` is the forward read upwards. In
decoding the last W − 1 inputs are the cache.

Behind the norm of a branch it shows each token the few before it (Allen-Zhu 2025, "Canon" layers A
and C); see ``convolution`` of `hybrid.Config`. It starts as the identity.

Shapes: x and y (B, T, D); the weight is (W, D), as in `causal_convolution`.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import Array, Key, Tree, WithState, expect_inputs, expect_residuals
from ...layers import causal_convolution

__all__ = ["Residuals", "forward", "init", "init_cache", "jvp", "step", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    convolution: causal_convolution.Residuals


def init(key: Key | None, *, d_model: int, width: int = 4, dtype: Any = np.float32) -> Tree:
    """Make ``width`` taps that return each input as it is."""
    return causal_convolution.init(key, d_model=d_model, width=width, identity=True, dtype=dtype)


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return each input mixed with the W − 1 before it, shape (B, T, D)."""
    expect_inputs(params, "weight: W D", x, "B T D")
    past = init_cache(params, len(x))
    y, residuals = causal_convolution.forward(params, WithState(x, past))
    return y.x, Residuals(residuals)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"weight"}, d_x)`` for the cotangent g (B, T, D)."""
    expect_residuals(residuals, Residuals)
    (inner,) = residuals
    unread = init_cache({"weight": inner.weight}, len(inner.padded))
    d_params, d = causal_convolution.vjp(inner, WithState(g, unread))
    return d_params, d.x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, D) for the tangents ``({"weight"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (inner,) = residuals
    t_params, t_x = t
    t_past = init_cache({"weight": inner.weight}, len(inner.padded))
    return causal_convolution.jvp(inner, (t_params, WithState(t_x, t_past))).x


def init_cache(params: Tree, batch: int, length: int = 0) -> Array:
    """Return the past (batch, W−1, D) of new texts of any length: zeros."""
    W, D = params["weight"].shape
    return np.zeros((batch, W - 1, D), params["weight"].dtype)


def step(
    params: Tree, x: Array, cache: Array, *, lengths: Array | None = None
) -> tuple[Array, Array]:
    """Return the output (B, T, D) for the next positions of each text, and the cache after them.

    Args:
        params: from `init`.
        x: (B, T, D), of the T positions after those that the cache has seen.
        cache: from `init_cache` or an earlier step.
        lengths: (B,) how many of the T positions each text really has; the rest is padding.
            Default: all.
    """
    text = WithState(x, cache)
    y, _ = causal_convolution.forward(params, text)
    return y.x, y.state if lengths is None else causal_convolution.state_after(text, lengths)
