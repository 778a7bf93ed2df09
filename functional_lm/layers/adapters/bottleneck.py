"""A small network behind a projection (Houlsby et al. 2019, figure 2).

Forward, with h = base(x):

    z = h·D + d
    y = h + max(z, 0)·U + u

U and u start at zero, so that the adapted projection equals its base.

VJP. With a = max(z, 0):

    d_U = aᵀ·g        d_u = sum of the rows of g        d_z = (g·Uᵀ)·[z > 0]
    d_D = hᵀ·d_z      d_d = sum of the rows of d_z      d_h = g + d_z·Dᵀ

and d_x is that of the base for d_h.

JVP. With t_h from the base:

    t_z = t_h·D + h·t_D + t_d        t_a = t_z·[z > 0]
    t_y = t_h + t_a·U + a·t_U + t_u

Shapes: x (..., D_in), y (..., D_out); D (D_out, R) and U (R, D_out) are ``down`` and ``up``.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_int,
    expect_params,
    expect_residuals,
    expect_tangent,
)
from ...numerics import rows, sum_rows
from ...prng import fold_in, normal

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]

OWN = ("down", "down_bias", "up", "up_bias")
SHAPES = "down: D R, down_bias: R, up: R D, up_bias: D"


class Residuals(NamedTuple):
    """What `vjp` needs."""

    base: Any  # residuals of the base
    h: Array  # (..., D_out)
    activated: Array  # (N, R)
    down: Array  # (D_out, R)
    up: Array  # (R, D_out)
    layer: Layer  # the base


def init(
    key: Key | None,
    *,
    base: Layer,
    d_in: int,
    d_out: int,
    size: int,
    scale: float = 1.0,
    given: Tree = None,
    dtype: Any = np.float32,
) -> Tree:
    """Draw ``down`` from N(0, 1/D_out); the other parameters of the network are zero.

    Args:
        key: randomness.
        base: the projection before it.
        d_in: D_in.
        d_out: D_out.
        size: R.
        scale: of the base's weight.
        given: the parameters of the base; drawn if not given.
        dtype: float32 or float64.
    """
    D, R = expect_int("d_out", d_out), expect_int("size", size)
    if given is None:
        given = base.init(fold_in(key, 0), d_in=d_in, d_out=D, scale=scale, dtype=dtype)
    return {
        "base": given,
        "down": normal(fold_in(key, 1), (D, R), scale=D**-0.5, dtype=dtype),
        "down_bias": np.zeros(R, dtype),
        "up": np.zeros((R, D), dtype),
        "up_bias": np.zeros(D, dtype),
    }


def forward(params: Tree, x: Array, *, base: Layer) -> tuple[Array, Residuals]:
    """Return ``base(x)`` plus what the network makes of it, shape (..., D_out).

    Args:
        params: ``base``, ``down``, ``down_bias``, ``up`` and ``up_bias``.
        x: (..., D_in).
        base: the projection before the network.
    """
    expect_params(params, ["base", *OWN])
    down, down_bias, up, up_bias = (params[name] for name in OWN)
    h, r_base = base.forward(params["base"], x)
    expect_inputs({name: params[name] for name in OWN}, SHAPES, h, "... D")
    activated = np.maximum(rows(h) @ down + down_bias, 0)  # (N, R)
    y = h + (activated @ up + up_bias).reshape(h.shape)
    return y, Residuals(r_base, h, activated, down, up, base)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"base", "down", "down_bias", "up", "up_bias"}, d_x)`` for g (..., D_out)."""
    expect_residuals(residuals, Residuals)
    r_base, h, activated, down, up, layer = residuals
    expect_cotangent(g, h.shape, h.dtype)
    flat = rows(g)
    d_z = (flat @ up.T) * (activated > 0)
    d_base, d_x = layer.vjp(r_base, g + (d_z @ down.T).reshape(h.shape))
    d_params = {
        "base": d_base,
        "down": rows(h).T @ d_z,
        "down_bias": sum_rows(d_z),
        "up": activated.T @ flat,
        "up_bias": sum_rows(flat),
    }
    return d_params, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D_out) for the tangents of the parameters and of x."""
    expect_residuals(residuals, Residuals)
    r_base, h, activated, down, up, layer = residuals
    shapes = (down.shape, down.shape[1:], up.shape, up.shape[1:])
    of_params = {"base": ..., **dict(zip(OWN, shapes, strict=True))}
    t_params, t_x = expect_tangent(t, (of_params, ...), h.dtype)
    t_h = layer.jvp(r_base, (t_params["base"], t_x))
    t_z = rows(t_h) @ down + rows(h) @ t_params["down"] + t_params["down_bias"]  # (N, R)
    t_activated = t_z * (activated > 0)
    t_added = t_activated @ up + activated @ t_params["up"] + t_params["up_bias"]
    return t_h + t_added.reshape(h.shape)
