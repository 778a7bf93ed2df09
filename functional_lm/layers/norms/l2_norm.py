"""Rows of length one, as queries and keys of a delta rule need (Yang et al. 2024, section 3.3).

Forward, for each row x (D):

    r = 1/√(Σ x² + eps)      y = x·r

VJP. With cotangent g of one row:

    ∂yᵢ/∂xⱼ = r·δᵢⱼ + xᵢ·∂r/∂xⱼ,   ∂r/∂xⱼ = −r³·xⱼ
            = r·(δᵢⱼ − yᵢ·yⱼ)
    ⇒  d_x = r·(g − y·Σ(g·y))

JVP. The Jacobian is symmetric, so it is its own transpose: t_y = r·(t_x − y·Σ(y·t_x)).

Shapes: x and y (..., D).
"""

from typing import NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_number,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ...numerics import row_dot

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (..., D)
    scale: Array  # (..., 1) one over the length of x


init = init_nothing


def forward(params: Tree, x: Array, *, eps: float = 1e-6) -> tuple[Array, Residuals]:
    """Return each row over its length; shape (..., D).

    Raises:
        ValueError: for a negative eps.
    """
    expect_inputs(params, "", x, "... D")
    scale = 1.0 / np.sqrt(row_dot(x, x) + expect_number("eps", eps, low=0.0))
    return x * scale, Residuals(x, scale)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (..., D)."""
    expect_residuals(residuals, Residuals)
    x, scale = residuals
    expect_cotangent(g, x.shape, x.dtype)
    y = x * scale
    return {}, scale * (g - y * row_dot(g, y))


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x, scale = residuals
    _, t_x = expect_tangent(t, ({}, x.shape), x.dtype)
    y = x * scale
    return scale * (t_x - y * row_dot(t_x, y))
