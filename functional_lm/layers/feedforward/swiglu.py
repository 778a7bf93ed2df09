"""SwiGLU, the gate of a feed-forward layer (Shazeer 2020, eq. 6).

Forward, for each row x (2F), whose halves are the gate a and the value u:

    y = silu(a)·u        silu(a) = a·σ(a)

VJP. With σ' = σ·(1 − σ), silu' = σ + a·σ·(1 − σ) = silu + σ·(1 − silu), and u·silu = y:

    ∂y/∂a = u·silu'(a) = y + σ(a)·(u − y)  ⇒  d_a = g·(y + σ(a)·(u − y))
    ∂y/∂u = silu(a)                        ⇒  d_u = g·silu(a)

JVP. With the same two slopes, t_y = (y + σ(a)·(u − y))·t_a + silu(a)·t_u.

Shapes: x (..., 2F), y (..., F). The matrices around it belong to `models.mlp`.
"""

from typing import NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ...numerics import sigmoid

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    gate_slope: Array  # (..., F) ∂y/∂a
    silu: Array  # (..., F) ∂y/∂u


init = init_nothing


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return silu of the first half of each row, times the second half; shape (..., F).

    Raises:
        ValueError: for rows of odd size.
    """
    expect_inputs(params, "", x, "... 2F")
    if x.shape[-1] % 2:
        raise ValueError(
            f"x must have rows of even size, gate and value: got {x.shape[-1]}; pass 2·F"
        )
    half = x.shape[-1] // 2
    a, u = x[..., :half], x[..., half:]
    sigma = sigmoid(a)
    silu = a * sigma
    y = silu * u
    gate_slope = y + sigma * (u - y)
    return y, Residuals(gate_slope, silu)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (..., F)."""
    expect_residuals(residuals, Residuals)
    gate_slope, silu = residuals
    expect_cotangent(g, silu.shape, silu.dtype)
    return {}, np.concatenate([g * gate_slope, g * silu], axis=-1)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., F) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    gate_slope, silu = residuals
    _, t_x = expect_tangent(t, ({}, (*silu.shape[:-1], 2 * silu.shape[-1])), silu.dtype)
    t_a, t_u = np.split(t_x, 2, axis=-1)
    return gate_slope * t_a + silu * t_u
