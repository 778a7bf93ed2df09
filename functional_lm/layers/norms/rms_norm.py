"""Root mean square normalisation (Zhang and Sennrich 2019, eq. 4).

Forward, for each row x (D) with scale s (D):

    rstd = 1/√(mean(x²) + eps)      x̂ = x·rstd      y = x̂·s

With an ``offset`` the parameter is s − offset. Gemma has an offset of 1 (Gemma Team 2024), so that
weight decay pulls the scale towards one and not towards zero. The offset is a constant: d_s is the
cotangent of the parameter, too.

VJP. With cotangent g of one row, and h = g·s the cotangent of x̂:

    d_s = Σ over rows of g·x̂
    ∂x̂ᵢ/∂xⱼ = rstd·δᵢⱼ + xᵢ·∂rstd/∂xⱼ,   ∂rstd/∂xⱼ = −rstd³·xⱼ/D
            = rstd·(δᵢⱼ − x̂ᵢ·x̂ⱼ/D)
    ⇒  d_x = rstd·(h − x̂·mean(h·x̂))

JVP. The same Jacobian of x̂, which is symmetric, and the product rule:

    t_x̂ = rstd·(t_x − x̂·mean(t_x·x̂))        t_y = t_x̂·s + x̂·t_s

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
from ...numerics import row_dot, rows, sum_rows

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x_hat: Array  # (..., D) the normalised rows
    rstd: Array  # (..., 1) one over their root mean square
    scale: Array  # (D,) s, with the offset


def init(
    key: Key | None = (), *, d_model: int, offset: float = 0.0, dtype: Any = np.float32
) -> Tree:
    """Return what makes the scale one: ones, less the offset. The key is not used."""
    ones = np.ones(expect_int("d_model", d_model), expect_dtype(dtype))
    return {"scale": ones - expect_number("offset", offset)}


def forward(
    params: Tree, x: Array, *, eps: float = 1e-6, offset: float = 0.0
) -> tuple[Array, Residuals]:
    """Return each row over its root mean square, times scale + offset; shape (..., D).

    Raises:
        ValueError: for a negative eps.
    """
    expect_inputs(params, "scale: D", x, "... D")
    scale = params["scale"] + expect_number("offset", offset)
    eps = expect_number("eps", eps, low=0.0)
    mean_square = row_dot(x, x) / len(scale)  # (..., 1)
    rstd = 1.0 / np.sqrt(mean_square + eps)
    x_hat = x * rstd
    y = x_hat * scale
    return y, Residuals(x_hat, rstd, scale)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"scale"}, d_x)`` for the cotangent g (..., D)."""
    expect_residuals(residuals, Residuals)
    x_hat, rstd, scale = residuals
    expect_cotangent(g, x_hat.shape, x_hat.dtype)
    h = g * scale
    mean_product = row_dot(h, x_hat) / len(scale)  # (..., 1)
    d_x = rstd * (h - x_hat * mean_product)
    d_scale = sum_rows(rows(g * x_hat))  # (D,)
    return {"scale": d_scale}, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D) for the tangents ``({"scale"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    x_hat, rstd, scale = residuals
    t_params, t_x = expect_tangent(t, ({"scale": scale.shape}, x_hat.shape), x_hat.dtype)
    along = row_dot(t_x, x_hat) / len(scale)  # (..., 1)
    t_x_hat = rstd * (t_x - x_hat * along)
    return t_x_hat * scale + x_hat * t_params["scale"]
