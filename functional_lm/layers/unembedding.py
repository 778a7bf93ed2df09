"""Unembedding, ``logits = x·Wᵀ``: the inner product with the row of every token.

Forward, for each row x (D) with weight W (V, D): yᵥ = Σᵢ xᵢ·Wᵥᵢ

VJP. With N rows and cotangent g (N, V):

    ∂L/∂Wᵥᵢ = Σₙ gₙᵥ·xₙᵢ  ⇒  d_W = gᵀ·x
    ∂L/∂xₙᵢ = Σᵥ gₙᵥ·Wᵥᵢ  ⇒  d_x = g·W

W has the shape of an embedding, so tying the two is one addition of two cotangents
(Press and Wolf 2017).

Shapes: x (..., D), y (..., V).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_sizes,
)
from ..numerics import rows
from ..prng import normal

__all__ = ["Residuals", "forward", "init", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (..., D)
    weight: Array  # (V, D)


def init(key: Key | None, *, vocab_size: int, d_model: int, dtype: Any = np.float32) -> Tree:
    """Draw from N(0, 0.02²), so that the first logits are near zero and the loss near ln V."""
    shape = expect_sizes(vocab_size=vocab_size, d_model=d_model)
    return {"weight": normal(key, shape, scale=0.02, dtype=dtype)}


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return the logits ``x @ weight.T``, shape (..., V)."""
    expect_inputs(params, "weight: V D", x, "... D")
    weight = params["weight"]
    y = rows(x) @ weight.T  # (N, V)
    return y.reshape(*x.shape[:-1], len(weight)), Residuals(x, weight)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"weight"}, d_x)`` for the cotangent g (..., V)."""
    expect_residuals(residuals, Residuals)
    x, weight = residuals
    expect_cotangent(g, (*x.shape[:-1], len(weight)), x.dtype)
    g = rows(g)  # (N, V)
    return {"weight": g.T @ rows(x)}, (g @ weight).reshape(x.shape)
