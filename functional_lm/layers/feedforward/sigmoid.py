"""The logistic sigmoid.

Forward, entry by entry: y = σ(x) = 1/(1 + e⁻ˣ)

VJP. From the formula, σ' = e⁻ˣ/(1 + e⁻ˣ)² = σ·(1 − σ):

    d_x = g·y·(1 − y)

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = t_x·y·(1 − y).

Shapes: x and y (...).
"""

from typing import NamedTuple

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

SHARES_MEMORY = "y is the residual"


class Residuals(NamedTuple):
    """What `vjp` needs."""

    y: Array  # (...) σ(x)


init = init_nothing


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return σ(x), shape (...)."""
    expect_inputs(params, "", x, "...")
    y = sigmoid(x)
    return y, Residuals(y)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    y = residuals.y
    expect_cotangent(g, y.shape, y.dtype)
    return {}, g * y * (1.0 - y)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    y = residuals.y
    _, t_x = expect_tangent(t, ({}, y.shape), y.dtype)
    return t_x * y * (1.0 - y)
