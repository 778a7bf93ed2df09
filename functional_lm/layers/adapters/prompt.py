"""Learned rows in front of a text, "prompt tuning" (Lester et al. 2021, section 2).

Forward. The same P rows p come in front of each of the B texts x:

    y[b] = [p; x[b]]

VJP. Each text gives its cotangent to p:

    d_p = Σ_b g[b, :P]        d_x[b] = g[b, P:]

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
)
from ...prng import normal

__all__ = ["Residuals", "forward", "init", "vjp"]


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
