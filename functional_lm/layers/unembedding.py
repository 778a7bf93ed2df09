"""Unembedding, ``logits = x·Wᵀ``: the inner product with the row of every token.

Forward, for each row x (D) with weight W (V, D): yᵥ = Σᵢ xᵢ·Wᵥᵢ

VJP. With N rows and cotangent g (N, V):

    ∂L/∂Wᵥᵢ = Σₙ gₙᵥ·xₙᵢ  ⇒  d_W = gᵀ·x
    ∂L/∂xₙᵢ = Σᵥ gₙᵥ·Wᵥᵢ  ⇒  d_x = g·W

With a ``soft_cap`` c (Gemma Team 2024, section 2) the logits are c·tanh(y/c), as in the layer
`soft_cap`, and the cotangent of y is g·(1 − tanh²).

W has the shape of an embedding, so tying the two is one addition of two cotangents
(Press and Wolf 2017).

JVP. The product rule, t_y = t_x·Wᵀ + x·t_Wᵀ, and times 1 − tanh² behind a cap.

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
    expect_number,
    expect_residuals,
    expect_sizes,
    expect_tangent,
)
from ..numerics import rows
from ..prng import normal

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (..., D)
    weight: Array  # (V, D)
    tanh: Array | None  # (N, V) of the logits over the cap, if there is one


def init(key: Key | None, *, vocab_size: int, d_model: int, dtype: Any = np.float32) -> Tree:
    """Draw from N(0, 0.02²), so that the first logits are near zero and the loss near ln V."""
    shape = expect_sizes(vocab_size=vocab_size, d_model=d_model)
    return {"weight": normal(key, shape, scale=0.02, dtype=dtype)}


def forward(params: Tree, x: Array, *, soft_cap: float | None = None) -> tuple[Array, Residuals]:
    """Return the logits ``x @ weight.T``, shape (..., V), between −soft_cap and soft_cap if given.

    Raises:
        ValueError: for a cap that is not positive.
    """
    expect_inputs(params, "weight: V D", x, "... D")
    weight = params["weight"]
    y = rows(x) @ weight.T  # (N, V)
    tanh = None
    if soft_cap is not None:
        soft_cap = expect_number("soft_cap", soft_cap, low=1e-30)
        tanh = np.tanh(y / soft_cap)
        y = soft_cap * tanh
    return y.reshape(*x.shape[:-1], len(weight)), Residuals(x, weight, tanh)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"weight"}, d_x)`` for the cotangent g (..., V)."""
    expect_residuals(residuals, Residuals)
    x, weight, tanh = residuals
    expect_cotangent(g, (*x.shape[:-1], len(weight)), x.dtype)
    g = rows(g)  # (N, V)
    if tanh is not None:
        g = g * (1.0 - tanh * tanh)
    return {"weight": g.T @ rows(x)}, (g @ weight).reshape(x.shape)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., V) for the tangents ``({"weight"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x, weight, tanh = residuals
    t_params, t_x = expect_tangent(t, ({"weight": weight.shape}, x.shape), x.dtype)
    t_y = rows(t_x) @ weight.T + rows(x) @ t_params["weight"].T  # (N, V)
    if tanh is not None:
        t_y *= 1.0 - tanh * tanh
    return t_y.reshape(*x.shape[:-1], len(weight))
