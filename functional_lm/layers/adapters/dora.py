"""Weight-decomposed low-rank adaptation of a linear map (Liu et al. 2024, eq. 5).

Forward. The weight W of the base has its columns turned by two thin matrices, as in `lora`, and
their lengths set by a learned magnitude μ. With V = W + s·A·B, nⱼ = ‖Vⱼ‖ the length of column j,
ρ = μ/n, and x̃ = m·x after dropout:

    z = ρ·(x·W + s·x̃·A·B) = x·(ρ·V) + s·(x̃ − x)·A·(ρ·B)      y = z + bias

so that without dropout one product does. Columns outside the adapted ranges have z = x·W. μ starts
as the lengths of the columns of W and B as zero, so that the adapted map equals its base.

VJP. The lengths depend on W, A and B too. With c = Σ of g·z over the rows, column by column:

    d_μ = c/μ
    d_n = −c/n  ⇒  d_V = V·e with e = −c/n², since ∂nⱼ/∂Vᵢⱼ = Vᵢⱼ/nⱼ
    d_W = ρ·(xᵀ·g) + V·e
    d_B = ρ·(hᵀ·g) + s·Aᵀ·(V·e)          h = s·x̃·A
    d_A = x̃ᵀ·d_h + s·(V·e)·Bᵀ            d_h = s·g·(ρ·B)ᵀ
    d_x = g·(ρ·V)ᵀ + (m − 1)·(d_h·Aᵀ)

Of V only Aᵀ·V is kept, as V·e·Bᵀ = W·(e·B)ᵀ + s·A·(B·(e·B)ᵀ). The base is `linear`, or another
layer with its parameters, so that a frozen one computes no d_W. A magnitude of zero counts as
`SMALL`: its gradient could not be found from a z of zero.

JVP. With t_V = t_W + s·(t_A·B + A·t_B), the lengths change by t_n = Σ V·t_V/n over the rows of V,
and ρ by ρ·q with q = t_μ/μ − t_n/n. As z = ρ·(x·W + s·x̃·A·B),

    t_z = that of the base for ρ·t_W and t_x
          + ρ·(s·x̃·t_A·B + h·t_B + s·(m − 1)·t_x·A·B) + q·z

Shapes: x (..., D_in), y (..., D_out), μ (W,); those of A and B are in `functional_lm.low_rank`.
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
    expect_residuals,
    expect_tangent,
)
from ...low_rank import Columns, Part, dropped, expect_thin, init_low_rank, parts_of, scale_of
from ...numerics import rows, sum_rows

__all__ = ["Residuals", "forward", "init", "jvp", "merge", "vjp"]

SHARES_MEMORY = (
    "without a bias, y is kept in the residuals: the gradient of the magnitudes needs it"
)

SMALL = 1e-20


class Residuals(NamedTuple):
    """What `vjp` needs."""

    base: Any  # residuals of the base
    x: Array  # (..., D_in) after dropout
    z: Array  # (N, D_out) y without the bias
    a: Array  # (D_in, P·R)
    b: Array  # (R, W)
    weight: Array  # (D_in, D_out)
    magnitude: Array  # (W,)
    turned: Array  # (R, W) Aᵀ·V
    lengths: Array  # (W,)
    ratio: Array  # (W,) ρ
    multiplier: Array | None  # (..., D_in) of dropout
    scale: float
    parts: list[Part]
    has_bias: bool
    layer: Layer  # the base


def init(
    key: Key | None,
    *,
    base: Layer,
    d_in: int,
    d_out: int | tuple[int, ...],
    rank: int,
    columns: Columns = None,
    scale: float = 1.0,
    given: Tree = None,
    dtype: Any = np.float32,
) -> Tree:
    """Draw A; B is zero, the magnitudes are the lengths of the columns; see `init_low_rank`."""
    sizes: dict[str, Any] = {"d_in": d_in, "d_out": d_out, "rank": rank, "columns": columns}
    params = init_low_rank(key, base=base, **sizes, scale=scale, given=given, dtype=dtype)
    weight = params["base"]["weight"]
    parts = parts_of(columns, weight.shape[1], rank)
    return params | {"magnitude": np.concatenate([_lengths(weight[:, p.wide]) for p in parts])}


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
    """Return x times the adapted weight, plus the bias if there is one; shape (..., D_out).

    Args:
        params: ``base``, ``a``, ``b`` and ``magnitude``.
        x: (..., D_in).
        base: the linear map that is adapted.
        alpha: α.
        rslora: divide α by √r.
        columns: the ranges of `init`.
        rate: of dropout.
        key: randomness of dropout. No key: no dropout.
    """
    expect_thin(params, x, columns, "magnitude")
    a, b = params["a"], params["b"]
    magnitude = np.where(params["magnitude"] == 0, SMALL, params["magnitude"])
    expect_inputs(params["base"], "weight: D_in D_out, bias?: D_out", x, "... D_in")
    weight, bias = params["base"]["weight"], params["base"].get("bias")
    parts, scale = parts_of(columns, weight.shape[-1], len(b), b), scale_of(alpha, len(b), rslora)
    turned, merged = np.empty_like(b), weight.copy()  # Aᵀ·V and ρ·V, range by range
    lengths, ratio = np.empty_like(magnitude), np.empty_like(magnitude)
    for part in parts:
        wide = _adapted(weight, a, b, part, scale)  # V (D_in, W of this range)
        turned[:, part.b] = a[:, part.a].T @ wide
        lengths[part.b] = _lengths(wide)
        ratio[part.b] = magnitude[part.b] / lengths[part.b]
        merged[:, part.wide] = wide * ratio[part.b]
    z, r_base = base.forward({"weight": merged}, x)
    x_dropped, multiplier = dropped(x, rate, key)
    if multiplier is not None:
        z, change = z.copy(), scale * ((x_dropped - x) @ a)  # (..., P·R)
        for part in parts:
            z[..., part.wide] += change[..., part.a] @ (b * ratio)[:, part.b]
    return z if bias is None else z + bias, Residuals(
        *(r_base, x_dropped, rows(z), a, b, weight, magnitude, turned, lengths, ratio),
        *(multiplier, scale, parts, bias is not None, base),
    )


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"base", "a", "b", "magnitude"}, d_x)`` for the cotangent g (..., D_out)."""
    expect_residuals(residuals, Residuals)
    r = residuals
    expect_cotangent(g, (*r.x.shape[:-1], r.z.shape[1]), r.x.dtype)
    flat = rows(g)
    c = sum_rows(flat * r.z)  # (D_out,)
    c = np.concatenate([c[part.wide] for part in r.parts])  # (W,)
    e = -c / r.lengths**2  # d_V = V·e
    hidden = r.scale * (rows(r.x) @ r.a)  # (N, P·R)
    d_hidden, d_a, d_b = np.empty_like(hidden), np.empty_like(r.a), r.scale * (r.turned * e)
    for part in r.parts:
        a, b, own, ratio = r.a[:, part.a], r.b[:, part.b], flat[:, part.wide], r.ratio[part.b]
        d_hidden[:, part.a] = r.scale * (own @ (b * ratio).T)
        d_b[:, part.b] += (hidden[:, part.a].T @ own) * ratio
        eb = (b * e[part.b]).T  # (W of this range, R)
        d_a[:, part.a] = r.scale * (r.weight[:, part.wide] @ eb + r.scale * (a @ (b @ eb)))
    d_a += rows(r.x).T @ d_hidden
    d_base, d_x = r.layer.vjp(r.base, g)
    if r.multiplier is not None:
        d_x = d_x + (d_hidden @ r.a.T).reshape(r.x.shape) * (r.multiplier - 1)
    if d_base["weight"] is not None:  # the base is not frozen
        d_weight = d_base["weight"].copy()
        for part in r.parts:
            wide = _adapted(r.weight, r.a, r.b, part, r.scale)
            d_weight[:, part.wide] *= r.ratio[part.b]
            d_weight[:, part.wide] += wide * e[part.b]
        d_base = {"weight": d_weight} | ({"bias": sum_rows(flat)} if r.has_bias else {})
    return {"base": d_base, "a": d_a, "b": d_b, "magnitude": c / r.magnitude}, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., D_out) for the tangents ``({"base", "a", "b", "magnitude"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    r = residuals
    of_base = {"weight": r.weight.shape} | ({"bias": r.weight.shape[1:]} if r.has_bias else {})
    shapes = {"base": of_base, "a": r.a.shape, "b": r.b.shape, "magnitude": r.magnitude.shape}
    t_params, t_x = expect_tangent(t, (shapes, r.x.shape), r.x.dtype)
    t_base, t_weight = t_params["base"], t_params["base"]["weight"].copy()
    hidden, t_hidden = rows(r.x) @ r.a, rows(r.x) @ t_params["a"]  # (N, P·R)
    if r.multiplier is not None:
        t_hidden += rows(t_x * (r.multiplier - 1)) @ r.a
    t_z = np.zeros_like(r.z)
    for part in r.parts:
        a, b, t_a = r.a[:, part.a], r.b[:, part.b], t_params["a"][:, part.a]
        t_b, ratio = t_params["b"][:, part.b], r.ratio[part.b]
        wide = _adapted(r.weight, r.a, r.b, part, r.scale)
        t_wide = t_base["weight"][:, part.wide] + r.scale * (t_a @ b + a @ t_b)
        t_weight[:, part.wide] *= ratio
        longer = sum_rows(wide * t_wide) / r.lengths[part.b] ** 2  # t_n/n
        q = t_params["magnitude"][part.b] / r.magnitude[part.b] - longer
        t_added = r.scale * ratio * (t_hidden[:, part.a] @ b + hidden[:, part.a] @ t_b)
        t_z[:, part.wide] = t_added + q * r.z[:, part.wide]
    t_y = r.layer.jvp(r.base, ({"weight": t_weight}, t_x))
    t_y = t_y + t_z.reshape(t_y.shape)
    return t_y + t_base["bias"] if r.has_bias else t_y


def merge(params: Tree, *, alpha: float, rslora: bool = False, columns: Columns = None) -> Tree:
    """Return the parameters of the base with the adapted weight μ·V/‖V‖ in place of W."""
    a, b, weight = params["a"], params["b"], params["base"]["weight"].copy()
    scale = scale_of(alpha, len(b), rslora)
    for part in parts_of(columns, weight.shape[1], len(b)):
        wide = _adapted(weight, a, b, part, scale)
        weight[:, part.wide] = wide * (params["magnitude"][part.b] / _lengths(wide))
    return {**params["base"], "weight": weight}


def _adapted(weight: Array, a: Array, b: Array, part: Part, scale: float) -> Array:
    """Return V = W + s·A·B, in the columns of one range."""
    return weight[:, part.wide] + scale * (a[:, part.a] @ b[:, part.b])


def _lengths(matrix: Array) -> Array:
    """Return the lengths of the columns."""
    return np.sqrt(sum_rows(matrix * matrix))
