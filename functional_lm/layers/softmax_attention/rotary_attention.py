"""Causal self-attention with rotary positions over packed queries, keys and values.

The same function as `rotary` on queries and keys, then `attention` (where the formulas are), made
fast: one product turns all heads, the scale 1/√K is part of the turn, no head is copied, blocks
of query rows skip the keys after them, and rows are normalised last.

Forward. With rotations R_t (orthogonal), for the rows of one head:

    q'_t = R_t·q_t/√K      k'_s = R_s·k_s
    E_ts = exp(q'_t·k'_s) for s ≤ t, else 0      Z_t = Σ_s E_ts      y_t = Σ_s E_ts·v_s/Z_t

That is softmax without the row's maximum, which cancels in E/Z. It is used where no score of the
block is above `HIGHEST` and no Z below `LOWEST`; else the maximum is subtracted first.

VJP. With probabilities P = E/Z and cotangent g of y, softmax gives d_S = P·(g·vᵀ − Σ_k g·y).
With g' = g/Z and δ = Σ_k g'·y this is

    d_S_ts = E_ts·(g'_t·v_s − δ_t)      d_v_s = Σ_t E_ts·g'_t
    d_q'_t = Σ_s d_S_ts·k'_s            d_k'_s = Σ_t d_S_ts·q'_t
    d_q_t = R_tᵀ·d_q'_t/√K              d_k_s = R_sᵀ·d_k'_s

and the R query heads of a group that share a key/value head add up in d_k' and d_v.

JVP. The turns are linear, and Σ_s E_ts·v_s/Z_t is y_t, so that softmax subtracts a multiple of y:

    t_S_ts = t_q'_t·k'_s + q'_t·t_k'_s        t_q'_t = R_t·t_q_t/√K        t_k'_s = R_s·t_k_s
    t_y_t = (Σ_s E_ts·(t_S_ts·v_s + t_v_s) − y_t·Σ_s E_ts·t_S_ts)/Z_t

Shapes: x (B, T, (H + 2G)·K) with H query, G key and G value heads; y (B, T, H·K).
Sources: Vaswani et al. 2017, eq. 1; Su et al. 2021, eq. 34; Ainslie et al. 2023.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ...heads import split_sizes
from ...rotation import expect_rotary, rotations, turn

__all__ = ["Residuals", "forward", "init", "jvp", "vjp", "weights"]

SHARES_MEMORY = "y is a view of residuals.y, which vjp needs and never writes to"

BLOCK = 64
"""Query rows that are computed at once."""

HIGHEST = 30.0
LOWEST = 1e-10
"""Bounds of scores and row sums between which softmax needs no maximum, even in float32."""


class Residuals(NamedTuple):
    """What `vjp` needs."""

    turned: Array  # (B, T, H + G, K) queries over √K, and keys
    v: Array  # (B, T, G, K)
    weights: tuple[Array, ...]  # E for each block of rows: (B, G, R, rows, keys up to the last row)
    reciprocal: Array  # (B, T, H, 1) 1/Z
    y: Array  # (B, T, H, K)
    rotation: Array  # (..., T, H + G, K/2) complex: of the queries over √K, and of the keys
    pairing: str


init = init_nothing


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    positions: Array,
    theta: float = 10000.0,
    pairing: str = "interleaved",
) -> tuple[Array, Residuals]:
    """Return each query's mean of the values up to its own, (B, T, H·K).

    Args:
        params: ``{}``.
        x: (B, T, (H + 2G)·K): query heads, then key heads, then value heads.
        n_heads: H.
        n_kv_heads: G, a divisor of H; H if not given.
        positions: of the tokens, (T,) or (B, T); they turn the heads. Who sees whom is decided by
            the order in x alone.
        theta: the base of the rotary wavelengths.
        pairing: "interleaved" or "half"; see `rotary`.

    Raises:
        TypeError: for positions that are not numbers.
        ValueError: for heads that do not divide the columns, an odd K, theta ≤ 0, an unknown
            pairing.
    """
    expect_inputs(params, "", x, "B T C")
    B, T, _ = x.shape
    H, G, K, _ = split_sizes(x.shape[-1], n_heads, n_kv_heads)
    theta = expect_rotary(positions, (B, T), K, theta, pairing)
    packed = np.ascontiguousarray(x).reshape(B, T, H + 2 * G, K)
    rotation = _rotations(positions, H, G, K, theta, x.dtype)
    turned = turn(packed[:, :, : H + G], rotation, pairing, np.empty((B, T, H + G, K), x.dtype))
    v = packed[:, :, H + G :]
    y, reciprocal = np.empty((B, T, H, K), x.dtype), np.empty((B, T, H, 1), x.dtype)

    q, k, values = _grouped(turned[:, :, :H], G), _grouped(turned[:, :, H:], G), _grouped(v, G)
    k_transposed = np.ascontiguousarray(k.swapaxes(-1, -2))
    y_rows, reciprocal_rows = _grouped(y, G), _grouped(reciprocal, G)  # (B, G, R, T, ...)
    weights = []
    for start in range(0, T, BLOCK):
        rows, keys = slice(start, start + BLOCK), slice(start + BLOCK)
        exponentials, total = _exponentials(q[..., rows, :], k_transposed[..., keys], start)
        np.matmul(exponentials, values[..., keys, :], out=y_rows[..., rows, :])
        np.divide(1.0, total, out=reciprocal_rows[..., rows, :])
        weights.append(exponentials)
    y *= reciprocal
    residuals = Residuals(turned, v, tuple(weights), reciprocal, y, rotation, pairing)
    return y.reshape(B, T, H * K), residuals


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (B, T, H·K)."""
    expect_residuals(residuals, Residuals)
    turned, v, weights, reciprocal, y, rotation, pairing = residuals
    B, T, H, K = y.shape
    G = v.shape[2]
    expect_cotangent(g, (B, T, H * K), y.dtype)
    g = g.reshape(B, T, H, K) * reciprocal  # g'
    delta = _grouped(np.vecdot(g, y)[..., None], G)  # (B, G, R, T, 1)
    d_x = np.empty((B, T, H + 2 * G, K), y.dtype)

    q, k, values = _grouped(turned[:, :, :H], G), _grouped(turned[:, :, H:], G), _grouped(v, G)
    d_q, d_k = _grouped(d_x[:, :, :H], G), _grouped(d_x[:, :, H : H + G], G)
    d_values, g = _grouped(d_x[:, :, H + G :], G), _grouped(g, G)
    values_transposed = np.ascontiguousarray(values.swapaxes(-1, -2))
    last = len(weights) - 1
    for i in range(last, -1, -1):  # the last block sees all keys, so that it may write: d_k = ...
        rows, keys = slice(i * BLOCK, (i + 1) * BLOCK), slice((i + 1) * BLOCK)
        d_scores = g[..., rows, :] @ values_transposed[..., keys]
        d_scores -= delta[..., rows, :]
        d_scores *= weights[i]
        np.matmul(d_scores, k[..., keys, :], out=d_q[..., rows, :])
        _sum_of_group(d_scores, q[..., rows, :], d_k[..., keys, :], add=i < last)
        _sum_of_group(weights[i], g[..., rows, :], d_values[..., keys, :], add=i < last)
    d_turned = d_x[:, :, : H + G]
    turn(d_turned, rotation.conj(), pairing, d_turned)
    return {}, d_x.reshape(B, T, (H + 2 * G) * K)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, H·K) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    turned, v, weights, reciprocal, y, rotation, pairing = residuals
    B, T, H, K = y.shape
    G = v.shape[2]
    _, t_x = expect_tangent(t, ({}, (B, T, (H + 2 * G) * K)), y.dtype)
    packed = np.ascontiguousarray(t_x).reshape(B, T, H + 2 * G, K)
    t_turned = turn(packed[:, :, : H + G], rotation, pairing, np.empty_like(turned))
    t_y = np.empty_like(y)

    q, k, values = _grouped(turned[:, :, :H], G), _grouped(turned[:, :, H:], G), _grouped(v, G)
    t_q, t_k = _grouped(t_turned[:, :, :H], G), _grouped(t_turned[:, :, H:], G)
    t_values, t_rows = _grouped(packed[:, :, H + G :], G), _grouped(t_y, G)
    y_rows = _grouped(y, G)  # (B, G, R, T, K)
    for i, exponentials in enumerate(weights):
        rows, keys = slice(i * BLOCK, (i + 1) * BLOCK), slice((i + 1) * BLOCK)
        t_scores = t_q[..., rows, :] @ k[..., keys, :].mT + q[..., rows, :] @ t_k[..., keys, :].mT
        t_scores *= exponentials
        t_out = t_scores @ values[..., keys, :] + exponentials @ t_values[..., keys, :]
        t_rows[..., rows, :] = t_out - y_rows[..., rows, :] * _row_sums(t_scores)
    return (t_y * reciprocal).reshape(B, T, H * K)


def weights(residuals: Residuals) -> Array:
    """Return the attention weights P (B, H, T, T) of a forward, for statistics and pictures."""
    B, T, H, _ = residuals.y.shape
    probs = np.zeros((B, H, T, T), residuals.y.dtype)
    start = 0
    for exponentials in residuals.weights:
        n_rows, n_keys = exponentials.shape[-2:]
        rows = slice(start, start + n_rows)
        probs[:, :, rows, :n_keys] = exponentials.reshape(B, H, n_rows, n_keys)
        start += n_rows
    probs *= residuals.reciprocal.swapaxes(1, 2)
    return probs


def _rotations(positions: Array, H: int, G: int, K: int, theta: float, dtype: Any) -> Array:
    """Return e^{iφ}/√K for the queries and e^{iφ} for the keys, (..., T, H + G, K/2)."""
    rotation = rotations(positions, K, theta, dtype)  # (..., T, 1, K/2)
    out = np.empty((*positions.shape, H + G, K // 2), rotation.dtype)
    out[..., :H, :] = rotation * (1 / math.sqrt(K))
    out[..., H:, :] = rotation
    return out


def _grouped(heads: Array, G: int) -> Array:
    """View (B, T, heads, K) as (B, G, heads/G, T, K)."""
    B, T, n_heads, K = heads.shape
    return heads.reshape(B, T, G, n_heads // G, K).transpose(0, 2, 3, 1, 4)


def _exponentials(q: Array, k: Array, start: int) -> tuple[Array, Array]:
    """Return E (B, G, R, rows, keys) of a block of rows, and Z, the sums of its rows."""
    scores = _scores(q, k, start)
    if scores.max(initial=-math.inf) <= HIGHEST:  # false for NaN too
        np.exp(scores, out=scores)
        total = _row_sums(scores)
        if total.min(initial=math.inf) >= LOWEST:
            return scores, total
        scores = _scores(q, k, start)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    return scores, _row_sums(scores)


def _row_sums(x: Array) -> Array:
    return (x @ np.ones(x.shape[-1], x.dtype))[..., None]


def _scores(q: Array, k: Array, start: int) -> Array:
    """Return the scores of a block of rows that begins at ``start``; −∞ above the diagonal."""
    scores = q @ k
    n = scores.shape[-2]
    future = np.triu(np.full((n, n), -math.inf, scores.dtype), 1)
    scores[..., start:] += future
    return scores


def _sum_of_group(a: Array, b: Array, out: Array, *, add: bool) -> None:
    """Write aᵀ·b, summed over the query heads of each group, to ``out``, or add it there.

    a (B, G, R, T, S), b (B, G, R, T, K), out (B, G, 1, S, K).
    """
    transposed = a.swapaxes(-1, -2)
    if out.shape[2] != a.shape[2]:
        product = (transposed @ b).sum(axis=2, keepdims=True)
    elif add:
        product = transposed @ b
    else:
        np.matmul(transposed, b, out=out)
        return
    if add:
        out += product
    else:
        out[...] = product
