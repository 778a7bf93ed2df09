"""Learned rows in front of a text, "prompt tuning" (Lester et al. 2021, section 2).

Forward. The same P rows p come in front of each of the B texts x:

    y[b] = [p; x[b]]

VJP. Each text gives its cotangent to p:

    d_p = Σ_b g[b, :P]        d_x[b] = g[b, P:]

JVP. The map is linear: t_y[b] = [t_p; t_x[b]].

Shapes: x (B, T, D), p (P, D), y (B, P + T, D).
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_sizes,
    expect_tangent,
)
from ...prng import normal

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (B, T, D), for its shape and dtype
    size: int  # P


def init(key: Key | None, *, size: int, d_model: int, dtype: Any = np.float32) -> Tree:
    """Draw the rows from N(0, 0.02²), as embeddings are."""
    return {
        "weight": normal(key, expect_sizes(size=size, d_model=d_model), scale=0.02, dtype=dtype)
    }


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return the rows and x behind them, shape (B, P + T, D)."""
    expect_inputs(params, "weight: P D", x, "B T D")
    weight = params["weight"]
    front = np.broadcast_to(weight, (len(x), *weight.shape))  # (B, P, D)
    return np.concatenate([front, x], axis=1), Residuals(x, len(weight))


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"weight"}, d_x)`` for the cotangent g (B, P + T, D)."""
    expect_residuals(residuals, Residuals)
    x, P = residuals
    B, T, D = x.shape
    expect_cotangent(g, (B, P + T, D), x.dtype)
    return {"weight": g[:, :P].sum(axis=0)}, g[:, P:].copy()


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, P + T, D) for the tangents ``({"weight"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x, P = residuals
    t_params, t_x = expect_tangent(t, ({"weight": (P, x.shape[-1])}, x.shape), x.dtype)
    front = np.broadcast_to(t_params["weight"], (len(x), P, x.shape[-1]))
    return np.concatenate([front, t_x], axis=1)
