"""Softmax over the last axis.

Forward, for each row x: pᵢ = exp(xᵢ − max x) / Σⱼ exp(xⱼ − max x)

VJP. The maximum cancels, so it needs no derivative. ∂pᵢ/∂xⱼ = pᵢ·(δᵢⱼ − pⱼ), hence

    d_xⱼ = Σᵢ gᵢ·pᵢ·(δᵢⱼ − pⱼ)  ⇒  d_x = p·(g − Σᵢ gᵢ·pᵢ)

JVP. The Jacobian is symmetric, so it is its own transpose: t_y = p·(t_x − Σ p·t_x).

Shapes: x and y (..., D). Entries of −inf get probability zero; a row of −inf alone gives NaN.
"""

from typing import NamedTuple

from ..contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ..numerics import softmax, softmax_vjp

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]

SHARES_MEMORY = "y is the residual probs, which is all that vjp needs"


class Residuals(NamedTuple):
    """What `vjp` needs."""

    probs: Array  # (..., D)


init = init_nothing


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return positive rows that sum to one; shape (..., D)."""
    expect_inputs(params, "", x, "... D")
    probs = softmax(x)
    return probs, Residuals(probs)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (..., D)."""
    expect_residuals(residuals, Residuals)
    (probs,) = residuals
    expect_cotangent(g, probs.shape, probs.dtype)
    return {}, softmax_vjp(probs, g)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (probs,) = residuals
    _, t_x = expect_tangent(t, ({}, probs.shape), probs.dtype)
    return softmax_vjp(probs, t_x)
