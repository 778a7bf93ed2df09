"""The step size of a state space, positive whatever its input (Gu and Dao 2023, section 3.6).

Forward, for each row x (H) with bias b (H), entry by entry:

    Δ = softplus(x + b)        softplus(z) = log(1 + eᶻ)

VJP. softplus'(z) = eᶻ/(1 + eᶻ) = σ(z), the sigmoid, so

    d_x = g·σ(x + b)        d_b = sum of the rows of d_x

JVP. t_y = (t_x + t_b)·σ(x + b).

Shapes: x and y (..., H).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_dtype,
    expect_inputs,
    expect_int,
    expect_number,
    expect_residuals,
    expect_tangent,
)
from ...numerics import rows, sigmoid, sum_rows
from ...prng import uniform

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    slope: Array  # (..., H) σ(x + b)


def init(
    key: Key | None,
    *,
    n_heads: int,
    shortest: float = 1e-3,
    longest: float = 0.1,
    dtype: Any = np.float32,
) -> Tree:
    """Return a bias that gives x = 0 steps between ``shortest`` and ``longest``.

    Their logarithms are drawn uniformly, so that the heads remember for very different times.
    """
    H, dtype = expect_int("n_heads", n_heads), expect_dtype(dtype)
    low = expect_number("shortest", shortest, low=1e-30)
    high = expect_number("longest", longest, low=low)
    steps = low * np.exp(math.log(high / low) * uniform(key, (H,)))
    return {"bias": (steps + np.log(-np.expm1(-steps))).astype(dtype)}  # softplus(bias) = steps


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return softplus(x + bias), shape (..., H)."""
    expect_inputs(params, "bias: H", x, "... H")
    z = x + params["bias"]
    return np.logaddexp(z, 0.0), Residuals(sigmoid(z))


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"bias"}, d_x)`` for the cotangent g (..., H)."""
    expect_residuals(residuals, Residuals)
    (slope,) = residuals
    expect_cotangent(g, slope.shape, slope.dtype)
    d_x = g * slope
    return {"bias": sum_rows(rows(d_x))}, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., H) for the tangents ``({"bias"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (slope,) = residuals
    t_params, t_x = expect_tangent(t, ({"bias": slope.shape[-1:]}, slope.shape), slope.dtype)
    return (t_x + t_params["bias"]) * slope
