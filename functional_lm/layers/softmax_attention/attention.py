"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with grouped key/value heads
(Ainslie et al. 2023).

Forward. For one head with queries Q (T, K), keys K (S, K) and values V (S, Kv):

    A = Q·Kᵀ/√K      P = softmax of each row of A, over the keys that the query may see      O = P·V

Query head h reads key/value head h // R with R = H/G: the R query heads of a group are R·T rows
that share one K and V.

What may change the scores and weights, in this order:

- a soft cap c (Gemma 2, 2024, section 2): A ← c·τ with τ = tanh(A/c)
- ALiBi (Press et al. 2022): A ← A − slope·|distance| with the head's slope; see `alibi_slopes`
- a sink (Xiao et al. 2024; gpt-oss, 2025): with the head's parameter z, one more key that has the
  score z in every row and the value zero, P = exp(A)/(exp(z) + Σ exp(A))
- dropout, from a key: P̃ = P·m/(1 − rate) with a mask m of zeros and ones, and O = P̃·V

VJP. With cotangent g of O, reading the forward upwards:

    d_V = P̃ᵀ·g       d_P̃ = g·Vᵀ     d_P = d_P̃·m/(1 − rate)
    D = Σ over keys of d_P·P         (for each row)
    d_A = P·(d_P − D)                (softmax; zero where P is zero)
    d_z = −Σ over rows of P_z·D      (the sink's weight P_z, whose cotangent is zero)
    d_A ← d_A·(1 − τ²)               (ALiBi adds a constant: nothing changes)
    d_Q = d_A·K/√K    d_K = d_Aᵀ·Q/√K

The rows of a group share K and V, so the products P̃ᵀ·g and d_Aᵀ·Q over all R·T rows are the sum
over the group. A row that may see no key has P = 0: its output and its gradients are zero.

JVP. Reading the forward downwards, with t_z the tangent of the sink's score:

    t_A = (t_Q·Kᵀ + Q·t_Kᵀ)/√K, times 1 − τ² behind a cap
    t_P = P·(t_A − Σ over keys of P·t_A − P_z·t_z)        (softmax, whose Jacobian is symmetric)
    t_O = (t_P·m/(1 − rate))·V + P̃·t_V

Shapes: x is ``QKV(q, k, v)`` with q (B, T, H, K), k (B, S, G, K) and v (B, S, G, Kv);
y (B, T, H, Kv); the sinks z (H,).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array, Key, Tree, expect_cotangent, expect_residuals, expect_tangent
from ...heads import (
    FULL,
    QKV,
    Visibility,
    alibi_bias,
    alibi_slopes,
    distances,
    dropout_multiplier,
    expect_attention,
    init_sinks,
    visible,
)
from ...numerics import row_dot, softmax_vjp

__all__ = ["Residuals", "forward", "init", "jvp", "vjp", "weights"]


class Residuals(NamedTuple):
    """What `vjp` needs; the R = H/G query heads of a group are stacked as R·T rows."""

    q: Array  # (B, G, R·T, K), over √K
    k: Array  # (B, G, S, K)
    v: Array  # (B, G, S, Kv)
    probs: Array  # (B, G, R·T, S)
    n_heads: int
    tanh: Array | None  # (B, G, R·T, S) τ, with a soft cap
    sink_probs: Array | None  # (B, H, T, 1) the weight of the sink, if there is one
    multiplier: Array | None  # (B, G, R·T, S) m/(1 − rate), with dropout


init = init_sinks


def forward(
    params: Tree,
    x: QKV,
    *,
    visibility: Visibility = FULL,
    soft_cap: float | None = None,
    alibi: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> tuple[Array, Residuals]:
    """Return each query's mean of the values, weighted by its match with the keys; (B, T, H, Kv).

    Args:
        params: ``{}``, or ``{"sinks"}``: a score for each head that takes part in its softmax.
        x: queries, keys and values.
        visibility: which keys a query may attend to. Default: all.
        soft_cap: the bound that scores approach smoothly, on both sides. Default: none.
        alibi: lower the scores of keys in proportion to their distance.
        dropout: the share of the weights that is dropped.
        key: randomness of dropout. No key: no dropout.

    Raises:
        TypeError: for a mask that is not boolean.
        ValueError: for an H that is not a multiple of G, or a mask that does not broadcast.
    """
    B, T, S, H, G, visibility = expect_attention(params, x, visibility, soft_cap, alibi, dropout)

    q = _group(x.q * (1 / math.sqrt(x.q.shape[-1])), G)  # (B, G, R·T, K)
    k, v = _group(x.k, G), _group(x.v, G)  # (B, G, S, K), (B, G, S, Kv)
    scores = q @ k.swapaxes(-1, -2)  # (B, G, R·T, S)
    tanh = None
    if soft_cap is not None:
        tanh = np.tanh(scores / soft_cap)
        scores = tanh * soft_cap
    heads = scores.reshape(B, H, T, S)
    if alibi:
        distance = distances(T, S, visibility.offset)
        heads += alibi_bias(alibi_slopes(H)[:, None, None], distance, heads.dtype)
    sinks = params["sinks"][:, None, None] if params else None  # (H, 1, 1)
    heads, sink_probs = _masked_softmax(heads, visible(T, S, visibility), sinks)
    probs = weights = heads.reshape(scores.shape)
    multiplier = dropout_multiplier(key, dropout, probs.shape, probs.dtype)
    if multiplier is not None:
        weights = probs * multiplier
    y = _ungroup(weights @ v, H)  # (B, T, H, Kv)
    return y, Residuals(q, k, v, probs, H, tanh, sink_probs, multiplier)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, QKV]:
    """Return ``({"sinks"?}, QKV(d_q, d_k, d_v))`` for the cotangent g (B, T, H, Kv)."""
    expect_residuals(residuals, Residuals)
    q, k, v, probs, H, tanh, sink_probs, multiplier = residuals
    B, G, RT, K = q.shape
    expect_cotangent(g, (B, RT * G // H, H, v.shape[-1]), q.dtype)
    g = _group(g, G)  # (B, G, R·T, Kv)
    weights = probs if multiplier is None else probs * multiplier
    d_v = weights.swapaxes(-1, -2) @ g  # (B, G, S, Kv), summed over the group
    d_probs = g @ v.swapaxes(-1, -2)  # (B, G, R·T, S)
    if multiplier is not None:
        d_probs *= multiplier
    d_params = {}
    if sink_probs is not None:
        mean = row_dot(d_probs, probs).reshape(sink_probs.shape)  # (B, H, T, 1) D
        d_params["sinks"] = -(sink_probs * mean).sum(axis=(0, 2, 3))
    d_scores = softmax_vjp(probs, d_probs)
    if tanh is not None:
        d_scores *= 1 - tanh * tanh
    d_q = (d_scores @ k) * (1 / math.sqrt(K))  # (B, G, R·T, K)
    d_k = d_scores.swapaxes(-1, -2) @ q  # (B, G, S, K), summed over the group; q is over √K
    return d_params, QKV(_ungroup(d_q, H), _ungroup(d_k, G), _ungroup(d_v, G))


def jvp(residuals: Residuals, t: tuple[Tree, QKV]) -> Array:
    """Return t_y (B, T, H, Kv) for the tangents ``({"sinks"?}, QKV(t_q, t_k, t_v))``."""
    expect_residuals(residuals, Residuals)
    q, k, v, probs, H, tanh, sink_probs, multiplier = residuals
    (B, G, RT, K), (_, _, S, Kv) = q.shape, v.shape
    of_sinks = {} if sink_probs is None else {"sinks": (H,)}
    of_heads = QKV._make([(B, RT * G // H, H, K), (B, S, G, K), (B, S, G, Kv)])
    t_params, t_x = expect_tangent(t, (of_sinks, of_heads), q.dtype)
    t_q = _group(t_x.q * (1 / math.sqrt(K)), G)  # (B, G, R·T, K)
    t_k, t_v = _group(t_x.k, G), _group(t_x.v, G)  # (B, G, S, K), (B, G, S, Kv)
    t_scores = t_q @ k.mT + q @ t_k.mT  # (B, G, R·T, S)
    if tanh is not None:
        t_scores *= 1 - tanh * tanh
    mean = row_dot(t_scores, probs)  # (B, G, R·T, 1)
    if sink_probs is not None:
        mean += (sink_probs * t_params["sinks"][:, None, None]).reshape(mean.shape)
    weights, t_weights = probs, probs * (t_scores - mean)
    if multiplier is not None:
        weights, t_weights = weights * multiplier, t_weights * multiplier
    return _ungroup(t_weights @ v + weights @ t_v, H)


def weights(residuals: Residuals) -> Array:
    """Return the attention weights P (B, H, T, S) of a forward, for statistics and pictures."""
    B, _, _, S = residuals.probs.shape
    return residuals.probs.reshape(B, residuals.n_heads, -1, S)


def _masked_softmax(
    scores: Array, allowed: Array | None, sinks: Array | None
) -> tuple[Array, Array | None]:
    """Return the softmax of each row over its allowed entries and the sink, in place.

    It is zero where no entry is allowed. The second result is the weight of the sink, (B, H, T, 1).
    """
    sees_none: Any = False
    if allowed is not None and not allowed.all():
        scores += np.where(allowed, 0.0, -math.inf).astype(scores.dtype)
        sees_none = ~allowed.any(axis=-1, keepdims=True)  # broadcasts to (B, H, T, 1)
    top = scores.max(axis=-1, keepdims=True, initial=-math.inf)
    if sinks is None:
        np.copyto(top, 0.0, where=sees_none)
    else:
        np.maximum(top, sinks, out=top)
    np.exp(np.subtract(scores, top, out=scores), out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    if sinks is None:
        np.copyto(total, 1.0, where=sees_none)
        scores /= total
        return scores, None
    sink = np.exp(sinks - top)
    total += sink
    scores /= total
    return scores, sink / total


def _group(x: Array, n_groups: int) -> Array:
    """Stack the heads of a group as rows: (B, T, H, K) to (B, G, H/G·T, K)."""
    B, T, H, K = x.shape
    return x.swapaxes(1, 2).reshape(B, n_groups, H // n_groups * T, K)


def _ungroup(x: Array, n_heads: int) -> Array:
    """Undo `_group`: (B, G, H/G·T, K) to (B, T, H, K)."""
    B, G, rows, K = x.shape
    heads = x.reshape(B, n_heads, G * rows // n_heads, K)
    return np.ascontiguousarray(heads.swapaxes(1, 2))
