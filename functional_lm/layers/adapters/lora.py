"""Low-rank adaptation of a projection (Hu et al. 2021, eq. 3).

Forward. Beside a base runs the product of two thin matrices, with s = α/r, or α/√r
(Kalajdzievski 2023, "rsLoRA"). x̃ = m·x is x after dropout:

    y = base(x) + s·x̃·A·B

B starts at zero, so that the adapted projection equals its base. Where the columns of the base
belong to several projections, some of them can be adapted, each with an A and a B of its own.

VJP. With h = s·x̃·A, so that y = base(x) + h·B, for each range of columns:

    d_B = hᵀ·g          d_h = g·Bᵀ
    d_A = s·x̃ᵀ·d_h      d_x = that of the base + s·m·(d_h·Aᵀ)

JVP. t_y = that of the base + t_h·B + h·t_B with t_h = s·(m·t_x·A + x̃·t_A), for each range.

Shapes: x (..., D_in), y (..., D_out); those of A and B are in `functional_lm.low_rank`.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import Array, Key, Layer, Tree, expect_cotangent, expect_residuals, expect_tangent
from ...low_rank import Columns, Part, dropped, expect_thin, init_low_rank, parts_of, scale_of
from ...numerics import rows

__all__ = ["Residuals", "forward", "init", "jvp", "merge", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    base: Any  # residuals of the base
    x: Array  # (..., D_in) after dropout
    hidden: Array  # (N, P·R) s·x̃·A
    a: Array  # (D_in, P·R)
    b: Array  # (R, W)
    multiplier: Array | None  # (..., D_in) of dropout
    scale: float
    parts: list[Part]
    width: int  # D_out
    layer: Layer  # the base


init = init_low_rank


def forward(
    params: Tree,
    x: Array,
    *,
    base: Layer,
    alpha: float,
    rslora: bool = False,
    columns: Columns = None,
    rate: float = 0.0,
    key: Key | None = None,
) -> tuple[Array, Residuals]:
    """Return ``base(x)`` plus the product of the thin matrices, shape (..., D_out).

    Args:
        params: ``base``, ``a`` and ``b``.
        x: (..., D_in).
        base: the projection that is adapted.
        alpha: α.
        rslora: divide α by √r.
        columns: the ranges of `init`.
        rate: of dropout.
        key: randomness of dropout. No key: no dropout.
    """
    expect_thin(params, x, columns)
    a, b = params["a"], params["b"]
    y, r_base = base.forward(params["base"], x)
    parts, scale = parts_of(columns, y.shape[-1], len(b), b), scale_of(alpha, len(b), rslora)
    x, multiplier = dropped(x, rate, key)
    hidden = scale * (rows(x) @ a)  # (N, P·R)
    y = y.copy()  # the base may have kept its own
    for part in parts:
        added = hidden[:, part.a] @ b[:, part.b]
        y[..., part.wide] += added.reshape(*x.shape[:-1], added.shape[1])
    width = y.shape[-1]
    return y, Residuals(r_base, x, hidden, a, b, multiplier, scale, parts, width, base)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"base", "a", "b"}, d_x)`` for the cotangent g (..., D_out)."""
    expect_residuals(residuals, Residuals)
    r_base, x, hidden, a, b, multiplier, scale, parts, width, layer = residuals
    expect_cotangent(g, (*x.shape[:-1], width), x.dtype)
    d_hidden, d_b = np.empty_like(hidden), np.empty_like(b)
    for part in parts:
        own = rows(g)[:, part.wide]
        d_b[:, part.b] = hidden[:, part.a].T @ own
        d_hidden[:, part.a] = own @ b[:, part.b].T
    d_scaled = scale * d_hidden
    d_a = rows(x).T @ d_scaled
    d_dropped = (d_scaled @ a.T).reshape(x.shape)
    d_base, d_x = layer.vjp(r_base, g)
    d_x = d_x + (d_dropped if multiplier is None else d_dropped * multiplier)
    return {"base": d_base, "a": d_a, "b": d_b}, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D_out) for the tangents ``({"base", "a", "b"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    r_base, x, hidden, a, b, multiplier, scale, parts, _, layer = residuals
    t_params, t_x = expect_tangent(t, ({"base": ..., "a": a.shape, "b": b.shape}, x.shape), x.dtype)
    t_y = np.array(layer.jvp(r_base, (t_params["base"], t_x)))
    t_dropped = t_x if multiplier is None else t_x * multiplier
    t_hidden = scale * (rows(t_dropped) @ a + rows(x) @ t_params["a"])  # (N, P·R)
    for part in parts:
        t_b = t_params["b"][:, part.b]
        t_added = t_hidden[:, part.a] @ b[:, part.b] + hidden[:, part.a] @ t_b
        t_y[..., part.wide] += t_added.reshape(*x.shape[:-1], t_added.shape[1])
    return t_y


def merge(params: Tree, *, alpha: float, rslora: bool = False, columns: Columns = None) -> Tree:
    """Return the parameters of the base with s·A·B added to its weight.

    With −α, what was added is taken away again.
    """
    a, b, weight = params["a"], params["b"], params["base"]["weight"].copy()
    scale = scale_of(alpha, len(b), rslora)
    for part in parts_of(columns, weight.shape[1], len(b)):
        weight[:, part.wide] += scale * (a[:, part.a] @ b[:, part.b])
    return {**params["base"], "weight": weight}
