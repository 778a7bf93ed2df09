"""Weight-decomposed low-rank adaptation of a linear map (Liu et al. 2024, eq. 5).

Forward. The weight W of the base has its columns turned by two thin matrices, as in `lora`, and
their lengths set by a learned magnitude μ. With V = W + s·A·B, nⱼ = ‖Vⱼ‖ the length of column j,
and x̃ = m·x after dropout:

    z = x·W + s·x̃·A·B
    yⱼ = μⱼ/nⱼ·zⱼ + bias

μ starts as the lengths of the columns of W and B as zero, so that the adapted map equals its base.

VJP. The lengths depend on W, A and B too. With ρ = μ/n, and c = Σ of g·z over the rows:

    d_z = g·ρ                              d_μ = c/n
    d_n = −c·μ/n²  ⇒  d_V = V·d_n/n,       since ∂nⱼ/∂Vᵢⱼ = Vᵢⱼ/nⱼ
    d_W = xᵀ·d_z + d_V
    d_B = s·((x̃·A)ᵀ·d_z + Aᵀ·d_V)          d_h = s·d_z·Bᵀ, of h = x̃·A
    d_A = x̃ᵀ·d_h + s·d_V·Bᵀ                d_x = d_z·Wᵀ + m·(d_h·Aᵀ)

Columns outside the adapted ranges have z = x·W and ρ = 1. The base is `linear`, or another layer
with its parameters, so that a frozen one computes no d_W.

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
)
from ...low_rank import Columns, Part, dropped, expect_thin, init_thin, parts_of, scale_of
from ...numerics import rows, sum_rows
from ...prng import fold_in

__all__ = ["Residuals", "forward", "init", "merge", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    base: Any  # residuals of the base
    x: Array  # (..., D_in) after dropout
    z: Array  # (N, D_out) before the magnitudes
    hidden: Array  # (N, P·R)
    a: Array  # (D_in, P·R)
    b: Array  # (R, W)
    magnitude: Array  # (W,)
    adapted: list[Array]  # V of each range
    lengths: Array  # (W,)
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
    """Draw A from N(0, 1/D_in); B is zero, the magnitudes are the lengths of the columns.

    Args:
        key: randomness.
        base: the linear map that is adapted.
        d_in: D_in.
        d_out: D_out, or the sizes that add up to it.
        rank: r.
        columns: the ranges of columns to adapt; all if not given.
        scale: of the base's weight.
        given: the parameters of the base; drawn if not given.
        dtype: float32 or float64.
    """
    thin = init_thin(fold_in(key, 1), d_in, int(np.sum(d_out)), rank, columns, dtype)
    if given is None:
        given = base.init(fold_in(key, 0), d_in=d_in, d_out=d_out, scale=scale, dtype=dtype)
    weight = given["weight"]
    wide = [weight[:, part.wide] for part in parts_of(columns, weight.shape[1], len(thin["b"]))]
    return {"base": given, **thin, "magnitude": _lengths(wide)}


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
    a, b, magnitude = params["a"], params["b"], params["magnitude"]
    expect_inputs(params["base"], "weight: D_in D_out, bias?: D_out", x, "... D_in")
    weight, bias = params["base"]["weight"], params["base"].get("bias")
    parts, scale = parts_of(columns, weight.shape[-1], len(b), b), scale_of(alpha, len(b), rslora)
    unbiased, r_base = base.forward({"weight": weight}, x)
    x, multiplier = dropped(x, rate, key)
    hidden = rows(x) @ a  # (N, P·R)
    adapted = [_adapted(weight, a, b, part, scale) for part in parts]
    lengths = _lengths(adapted)
    z = rows(unbiased).copy()  # (N, D_out)
    for part in parts:
        z[:, part.wide] += scale * (hidden[:, part.a] @ b[:, part.b])
    y = z.copy()
    for part in parts:
        y[:, part.wide] *= magnitude[part.b] / lengths[part.b]
    if bias is not None:
        y += bias
    return y.reshape(unbiased.shape), Residuals(
        *(r_base, x, z, hidden, a, b, magnitude, adapted, lengths),
        *(multiplier, scale, parts, bias is not None, base),
    )


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"base", "a", "b", "magnitude"}, d_x)`` for the cotangent g (..., D_out)."""
    expect_residuals(residuals, Residuals)
    r = residuals
    expect_cotangent(g, (*r.x.shape[:-1], r.z.shape[1]), r.x.dtype)
    flat = rows(g)
    d_z = flat.copy()
    d_hidden, d_a, d_b = (np.empty_like(one) for one in (r.hidden, r.a, r.b))
    d_magnitude, d_adapted = np.empty_like(r.magnitude), []
    for part, wide in zip(r.parts, r.adapted, strict=True):
        own_a, own_b, n = r.a[:, part.a], r.b[:, part.b], r.lengths[part.b]
        ratio = r.magnitude[part.b] / n
        d_ratio = sum_rows(flat[:, part.wide] * r.z[:, part.wide])
        d_magnitude[part.b] = d_ratio / n
        d_v = wide * (-d_ratio * ratio / (n * n))  # (D_in, W of this range)
        scaled = r.scale * (flat[:, part.wide] * ratio)
        d_z[:, part.wide] *= ratio
        d_hidden[:, part.a] = scaled @ own_b.T
        d_b[:, part.b] = r.hidden[:, part.a].T @ scaled + r.scale * (own_a.T @ d_v)
        d_a[:, part.a] = r.scale * (d_v @ own_b.T)
        d_adapted.append(d_v)
    d_a += rows(r.x).T @ d_hidden
    d_dropped = (d_hidden @ r.a.T).reshape(r.x.shape)
    d_base, d_x = r.layer.vjp(r.base, d_z.reshape(g.shape))
    d_x = d_x + (d_dropped if r.multiplier is None else d_dropped * r.multiplier)
    if d_base["weight"] is not None:  # the base is not frozen
        d_weight = d_base["weight"].copy()
        for part, d_v in zip(r.parts, d_adapted, strict=True):
            d_weight[:, part.wide] += d_v
        d_base = {"weight": d_weight} | ({"bias": sum_rows(flat)} if r.has_bias else {})
    return {"base": d_base, "a": d_a, "b": d_b, "magnitude": d_magnitude}, d_x


def merge(params: Tree, *, alpha: float, rslora: bool = False, columns: Columns = None) -> Tree:
    """Return the parameters of the base with the adapted weight μ·V/‖V‖ in place of W."""
    a, b, weight = params["a"], params["b"], params["base"]["weight"].copy()
    scale = scale_of(alpha, len(b), rslora)
    for part in parts_of(columns, weight.shape[1], len(b)):
        wide = _adapted(weight, a, b, part, scale)
        weight[:, part.wide] = wide * (params["magnitude"][part.b] / _lengths([wide]))
    return {**params["base"], "weight": weight}


def _adapted(weight: Array, a: Array, b: Array, part: Part, scale: float) -> Array:
    """Return V = W + s·A·B, in the columns of one range."""
    return weight[:, part.wide] + scale * (a[:, part.a] @ b[:, part.b])


def _lengths(matrices: list[Array]) -> Array:
    """Return the lengths of the columns of matrices side by side."""
    return np.concatenate([np.sqrt(sum_rows(matrix * matrix)) for matrix in matrices])
