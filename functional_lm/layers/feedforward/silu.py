"""SiLU, the sigmoid-weighted linear unit (Elfwing, Uchibe and Doya 2018).

Forward, entry by entry: y = x·σ(x)

VJP. With σ' = σ·(1 − σ):

    y' = σ + x·σ·(1 − σ)  ⇒  d_x = g·σ·(1 + x·(1 − σ))

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = t_x·σ·(1 + x·(1 − σ)).

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


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (...)
    sigma: Array  # (...) σ(x)


init = init_nothing


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return x·σ(x), shape (...)."""
    expect_inputs(params, "", x, "...")
    sigma = sigmoid(x)
    return x * sigma, Residuals(x, sigma)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    x, sigma = residuals
    expect_cotangent(g, x.shape, x.dtype)
    return {}, g * sigma * (1.0 + x * (1.0 - sigma))


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x, sigma = residuals
    _, t_x = expect_tangent(t, ({}, x.shape), x.dtype)
    return t_x * sigma * (1.0 + x * (1.0 - sigma))
