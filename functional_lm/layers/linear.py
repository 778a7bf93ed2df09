"""Linear map, ``y = x·W + b``.

Forward, for each row x (D_in) with weight W (D_in, D_out) and optional bias b (D_out):

    yⱼ = Σᵢ xᵢ·Wᵢⱼ + bⱼ

VJP. With N rows and cotangent g (N, D_out):

    ∂L/∂Wᵢⱼ = Σₙ xₙᵢ·gₙⱼ  ⇒  d_W = xᵀ·g
    ∂L/∂bⱼ  = Σₙ gₙⱼ      ⇒  d_b = sum of the rows of g
    ∂L/∂xₙᵢ = Σⱼ gₙⱼ·Wᵢⱼ  ⇒  d_x = g·Wᵀ

JVP. The product rule: t_y = t_x·W + x·t_W + t_b.

Shapes: x (..., D_in), y (..., D_out).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_int,
    expect_residuals,
    expect_tangent,
)
from ..numerics import rows, sum_rows
from ..prng import matrix_std, normal

__all__ = ["Residuals", "forward", "init", "input_vjp", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (..., D_in)
    weight: Array  # (D_in, D_out)
    has_bias: bool


def init(
    key: Key | None,
    *,
    d_in: int,
    d_out: int | tuple[int, ...],
    bias: bool = False,
    scale: float = 1.0,
    init_scale: float | None = None,
    dtype: Any = np.float32,
) -> Tree:
    """Draw the weight from N(0, 2/(d_in + d_out)), times ``scale``; a bias starts at zero.

    Several ``d_out`` are maps side by side in one matrix, each with its own variance. With an
    ``init_scale`` s, draw from N(0, s²/d_in) instead.

    Source: Glorot and Bengio 2010, eq. 16, as a normal distribution.
    """
    d_in = expect_int("d_in", d_in)
    sizes = [expect_int("d_out", size) for size in np.atleast_1d(d_out)]
    std = np.repeat([scale * matrix_std(d_in, size, init_scale) for size in sizes], sizes)
    params = {"weight": normal(key, (d_in, sum(sizes)), scale=std, dtype=dtype)}
    if bias:
        params["bias"] = np.zeros(sum(sizes), dtype)
    return params


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return ``x @ weight + bias``, shape (..., D_out)."""
    expect_inputs(params, "weight: D_in D_out, bias?: D_out", x, "... D_in")
    weight, bias = params["weight"], params.get("bias")
    y = rows(x) @ weight  # (N, D_out)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1]), Residuals(x, weight, bias is not None)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"weight", "bias"}, d_x)`` for the cotangent g (..., D_out)."""
    expect_residuals(residuals, Residuals)
    x, weight, has_bias = residuals
    expect_cotangent(g, (*x.shape[:-1], weight.shape[1]), x.dtype)
    g = rows(g)  # (N, D_out)
    d_params = {"weight": rows(x).T @ g}
    if has_bias:
        d_params["bias"] = sum_rows(g)
    return d_params, (g @ weight.T).reshape(x.shape)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D_out) for the tangents ``({"weight", "bias"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x, weight, has_bias = residuals
    shapes = {"weight": weight.shape} | ({"bias": weight.shape[1:]} if has_bias else {})
    t_params, t_x = expect_tangent(t, (shapes, x.shape), x.dtype)
    t_y = rows(t_x) @ weight + rows(x) @ t_params["weight"]  # (N, D_out)
    if has_bias:
        t_y += t_params["bias"]
    return t_y.reshape(*x.shape[:-1], weight.shape[1])


def input_vjp(residuals: Residuals, g: Array) -> Array:
    """Return d_x alone, for a map that is not trained."""
    expect_residuals(residuals, Residuals)
    return (rows(g) @ residuals.weight.T).reshape(residuals.x.shape)
