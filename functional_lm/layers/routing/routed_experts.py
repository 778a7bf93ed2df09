"""The experts of a mixture: feed-forward layers, each for the rows that chose it.

Forward, for each row x (D) with the weights w (k) of its chosen experts e (k) (Shazeer et al.
2017, eq. 1, with the sum over the chosen only):

    y = Σⱼ wⱼ·φ(x·Uₑⱼ)·Vₑⱼ

with an activation φ, which may be gated. No row is dropped: its N·k copies are sorted by expert,
and each expert takes one product with a contiguous slice of them. So the cost grows with k and not
with the number of experts. The weight multiplies the hidden units h = φ(x·U), which are fewer than
the entries of y for small experts.

VJP. Sorting and its inverse are permutations, and a copy of a row and a sum over copies are each
other's transpose. For each copy, with the cotangent g of its row and t = g·Vᵀ:

    y = (w·h)·V  ⇒  d_V = (w·h)ᵀ·g, over the rows of the expert      d_w = Σ t·h      d_h = w·t
    h = φ(x·U)   ⇒  d_U = xᵀ·d_u, likewise, with d_u from φ's vjp    d_x = Σⱼ d_u·Uᵀ, over copies

An expert without rows has zero gradients.

JVP. The copies of the tangents take the same order. For each copy, with t_h from φ's jvp:

    t_h from t_x·U + x·t_U        t_y = Σⱼ (t_w·h + w·t_h)·V + (w·h)·t_V

Shapes: ``up`` (E, D, F), or (E, D, 2F) if gated; ``down`` (E, F, D); x and y (..., D), weights and
experts (..., k). In the code M = N·k is the number of copies.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_cotangent,
    expect_floating,
    expect_inputs,
    expect_residuals,
    expect_shape,
    expect_sizes,
    expect_tangent,
    expect_tokens,
)
from ...numerics import row_dot, rows
from ...prng import fold_in, matrix_std, normal

__all__ = ["Residuals", "Routed", "forward", "init", "jvp", "vjp"]


class Routed(NamedTuple):
    """The input: rows, and how much each of its experts counts."""

    x: Array  # (..., D)
    weights: Array  # (..., k)


class Residuals(NamedTuple):
    """What `vjp` needs."""

    copies: Array  # (M, D) the rows, sorted by expert
    hidden: Array  # (M, F) after the activation
    weights: Array  # (M, 1) in that order
    up: Array  # (E, D, F) or (E, D, 2F)
    down: Array  # (E, F, D)
    order: Array  # (M,) which copy comes at each place
    counts: Array  # (E,) copies of each expert
    shape: tuple[int, ...]  # of the experts that were chosen, (..., k)
    activation: Layer
    r_activation: Any


def init(
    key: Key | None,
    *,
    n_experts: int,
    d_model: int,
    d_ff: int,
    gated: bool = True,
    output_scale: float = 1.0,
    init_scale: float | None = None,
    dtype: Any = np.float32,
) -> Tree:
    """Draw each matrix as `linear` does; ``output_scale`` multiplies ``down``."""
    E, D, F = expect_sizes(n_experts=n_experts, d_model=d_model, d_ff=d_ff)
    up, std = (E, D, 2 * F if gated else F), output_scale * matrix_std(F, D, init_scale)
    return {
        "up": normal(fold_in(key, 0), up, scale=matrix_std(D, F, init_scale), dtype=dtype),
        "down": normal(fold_in(key, 1), (E, F, D), scale=std, dtype=dtype),
    }


def forward(
    params: Tree, x: Routed, *, experts: Array, activation: Layer
) -> tuple[Array, Residuals]:
    """Return for each row the weighted sum of what its experts make of it; shape (..., D).

    Args:
        params: ``up`` and ``down``.
        x: the rows and the weights of their experts.
        experts: (..., k) integers in ``[0, E)``.
        activation: a layer without parameters, such as `swiglu`.

    Raises:
        TypeError: for experts that are not integers.
        ValueError: for experts outside ``[0, E)``.
    """
    if not isinstance(x, Routed):
        raise TypeError(f"x must be a Routed: got {type(x).__name__}; pass Routed(x, weights)")
    expect_inputs(params, "up: E D Fu, down: E F D", x.x, "... D")
    expect_floating(x=x.x, weights=x.weights)
    up, down = params["up"], params["down"]
    expect_tokens("experts", experts, len(up), fix="compare it with the parameters")
    if x.weights.shape != experts.shape or x.x.shape[:-1] != experts.shape[:-1]:
        raise ValueError(
            "experts must have shape (..., k), like the weights and beside x (..., D): got "
            f"{experts.shape} for {x.weights.shape} and {x.x.shape}; pass one for each weight"
        )
    k, D = experts.shape[-1], x.x.shape[-1]
    order = np.argsort(experts.ravel(), kind="stable")  # (M,)
    counts = np.bincount(experts.ravel(), minlength=len(up))
    copies = rows(x.x)[order // k]  # (M, D)
    weights = x.weights.reshape(-1, 1)[order]  # (M, 1)
    hidden, r_activation = activation.forward({}, _products(copies, up, counts))  # (M, F)
    expect_shape("down", down, "E F D", F=hidden.shape[1])
    y = _sum_of_copies(_products(weights * hidden, down, counts), order, k)  # (N, D)
    own = copies, hidden, weights, up, down, order, counts, experts.shape, activation
    return y.reshape(*experts.shape[:-1], D), Residuals(*own, r_activation)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Routed]:
    """Return ``({"up", "down"}, Routed(d_x, d_weights))`` for the cotangent g (..., D)."""
    expect_residuals(residuals, Residuals)
    copies, hidden, weights, up, down, order, counts, shape, activation, _ = residuals
    D, k = copies.shape[-1], shape[-1]
    expect_cotangent(g, (*shape[:-1], D), copies.dtype)
    g_copies = rows(g)[order // k]  # (M, D)
    d_weighted = _products(g_copies, down.swapaxes(1, 2), counts)  # (M, F)
    d_down = _outer_products(weights * hidden, g_copies, counts)  # (E, F, D)
    d_weights = np.empty_like(weights)
    d_weights[order] = row_dot(d_weighted, hidden)
    _, d_h = activation.vjp(residuals.r_activation, weights * d_weighted)
    d_up = _outer_products(copies, d_h, counts)
    d_x = _sum_of_copies(_products(d_h, up.swapaxes(1, 2), counts), order, k)
    d_x = d_x.reshape(*shape[:-1], D)
    return {"up": d_up, "down": d_down}, Routed(d_x, d_weights.reshape(shape))


def jvp(residuals: Residuals, t: tuple[Tree, Routed]) -> Array:
    """Return t_y (..., D) for the tangents ``({"up", "down"}, Routed(t_x, t_weights))``."""
    expect_residuals(residuals, Residuals)
    copies, hidden, weights, up, down, order, counts, shape, activation, _ = residuals
    D, k = copies.shape[-1], shape[-1]
    shapes = {"up": up.shape, "down": down.shape}, Routed._make([(*shape[:-1], D), shape])
    t_params, (t_x, t_w) = expect_tangent(t, shapes, copies.dtype)
    t_copies, t_weights = rows(t_x)[order // k], t_w.reshape(-1, 1)[order]  # (M, D), (M, 1)
    t_h = _products(t_copies, up, counts) + _products(copies, t_params["up"], counts)
    t_hidden = activation.jvp(residuals.r_activation, ({}, t_h))  # (M, F)
    t_y = _products(t_weights * hidden + weights * t_hidden, down, counts)
    t_y += _products(weights * hidden, t_params["down"], counts)
    return _sum_of_copies(t_y, order, k).reshape(*shape[:-1], D)


def _products(x: Array, weight: Array, counts: Array) -> Array:
    """Return each expert's rows of x times its matrix."""
    y = np.empty((len(x), weight.shape[2]), x.dtype)
    for part, matrix in zip(_slices(counts), weight, strict=True):
        np.matmul(x[part], matrix, out=y[part])
    return y


def _outer_products(x: Array, g: Array, counts: Array) -> Array:
    """Return xᵀ·g for each expert's rows: zero where it has none."""
    d_weight = np.empty((len(counts), x.shape[1], g.shape[1]), x.dtype)
    for part, matrix in zip(_slices(counts), d_weight, strict=True):
        np.matmul(x[part].T, g[part], out=matrix)
    return d_weight


def _slices(counts: Array) -> list[slice]:
    ends = np.cumsum(counts)
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def _sum_of_copies(copies: Array, order: Array, k: int) -> Array:
    """Return the sum (N, D) of the k copies of each row."""
    unsorted = np.empty_like(copies)
    unsorted[order] = copies
    return unsorted.reshape(-1, k, copies.shape[1]).sum(axis=1)
