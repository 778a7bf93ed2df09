"""Layer normalisation (Ba, Kiros and Hinton 2016, section 3.1).

Forward, for each row x (D) with scale s (D) and optional bias b (D):

    c = x − mean(x)      rstd = 1/√(mean(c²) + eps)      x̂ = c·rstd      y = x̂·s + b

VJP. With cotangent g of one row, and h = g·s the cotangent of x̂:

    d_s = Σ over rows of g·x̂      d_b = Σ over rows of g

Between c and x̂ stands the root mean square of `rms_norm`, hence d_c = rstd·(h − x̂·mean(h·x̂)). The
mean is linear, ∂cᵢ/∂xⱼ = δᵢⱼ − 1/D, so that d_x = d_c − mean(d_c); and as mean(x̂) = 0,

    d_x = rstd·(h − mean(h) − x̂·mean(h·x̂))

JVP. The same Jacobian of x̂, which is symmetric, and the product rule:

    t_x̂ = rstd·(t_x − mean(t_x) − x̂·mean(t_x·x̂))        t_y = t_x̂·s + x̂·t_s + t_b

Shapes: x and y (..., D).
"""

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
from ...numerics import row_dot, row_mean, rows, sum_rows

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x_hat: Array  # (..., D) the normalised rows
    rstd: Array  # (..., 1) one over their standard deviation
    scale: Array  # (D,)
    has_bias: bool


def init(key: Key | None = (), *, d_model: int, bias: bool = True, dtype: Any = np.float32) -> Tree:
    """Return a scale of ones and a bias of zeros; the key is not used."""
    dtype = expect_dtype(dtype)
    params = {"scale": np.ones(expect_int("d_model", d_model), dtype)}
    if bias:
        params["bias"] = np.zeros(d_model, dtype)
    return params


def forward(params: Tree, x: Array, *, eps: float = 1e-5) -> tuple[Array, Residuals]:
    """Return each row with mean 0 and variance 1, times the scale, plus the bias; shape (..., D).

    Raises:
        ValueError: for a negative eps.
    """
    expect_inputs(params, "scale: D, bias?: D", x, "... D")
    scale, bias = params["scale"], params.get("bias")
    eps = expect_number("eps", eps, low=0.0)
    centred = x - row_mean(x)
    variance = row_dot(centred, centred) / len(scale)  # (..., 1)
    rstd = 1.0 / np.sqrt(variance + eps)
    x_hat = centred * rstd
    y = x_hat * scale
    if bias is not None:
        y = y + bias
    return y, Residuals(x_hat, rstd, scale, bias is not None)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"scale", "bias"}, d_x)`` for the cotangent g (..., D)."""
    expect_residuals(residuals, Residuals)
    x_hat, rstd, scale, has_bias = residuals
    expect_cotangent(g, x_hat.shape, x_hat.dtype)
    h = g * scale
    mean_product = row_dot(h, x_hat) / len(scale)  # (..., 1)
    d_x = rstd * (h - row_mean(h) - x_hat * mean_product)
    d_params = {"scale": sum_rows(rows(g * x_hat))}  # (D,)
    if has_bias:
        d_params["bias"] = sum_rows(rows(g))
    return d_params, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D) for the tangents ``({"scale", "bias"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x_hat, rstd, scale, has_bias = residuals
    shapes = {"scale": scale.shape} | ({"bias": scale.shape} if has_bias else {})
    t_params, t_x = expect_tangent(t, (shapes, x_hat.shape), x_hat.dtype)
    along = row_dot(t_x, x_hat) / len(scale)  # (..., 1)
    t_x_hat = rstd * (t_x - row_mean(t_x) - x_hat * along)
    t_y = t_x_hat * scale + x_hat * t_params["scale"]
    return t_y + t_params["bias"] if has_bias else t_y
