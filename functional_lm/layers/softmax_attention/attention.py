"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with grouped key/value heads
(Ainslie et al. 2023).

Forward. For one head with queries Q (T, K), keys K (S, K) and values V (S, Kv):

    A = Q·Kᵀ/√K      P = softmax of each row of A, over the keys that the query may see      O = P·V

Query head h reads key/value head h // R with R = H/G: the R query heads of a group are R·T rows
that share one K and V.

VJP. With cotangent g of O, reading the forward upwards:

    d_V = Pᵀ·g        d_P = g·Vᵀ
    d_A = P·(d_P − Σ over keys of d_P·P)              (softmax; zero where P is zero)
    d_Q = d_A·K/√K    d_K = d_Aᵀ·Q/√K

The rows of a group share K and V, so the products Pᵀ·g and d_Aᵀ·Q over all R·T rows are the sum
over the group. A row that may see no key has P = 0: its output and its gradients are zero.

Shapes: x is ``QKV(q, k, v)`` with q (B, T, H, K), k (B, S, G, K) and v (B, S, G, Kv);
y (B, T, H, Kv).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array, Tree, expect_cotangent, expect_params, expect_residuals, init_nothing
from ...heads import FULL, QKV, Visibility, expect_qkv, expect_visibility, visible
from ...numerics import softmax_vjp

__all__ = ["Residuals", "forward", "init", "vjp", "weights"]


class Residuals(NamedTuple):
    """What `vjp` needs; the R = H/G query heads of a group are stacked as R·T rows."""

    q: Array  # (B, G, R·T, K), over √K
    k: Array  # (B, G, S, K)
    v: Array  # (B, G, S, Kv)
    probs: Array  # (B, G, R·T, S)
    n_heads: int


init = init_nothing


def forward(params: Tree, x: QKV, *, visibility: Visibility = FULL) -> tuple[Array, Residuals]:
    """Return each query's mean of the values, weighted by its match with the keys; (B, T, H, Kv).

    Args:
        params: ``{}``.
        x: queries, keys and values.
        visibility: which keys a query may attend to. Default: all.

    Raises:
        TypeError: for a mask that is not boolean.
        ValueError: for an H that is not a multiple of G, or a mask that does not broadcast.
    """
    expect_params(params)
    B, T, S, H, G = expect_qkv(x)
    allowed = visible(T, S, expect_visibility(visibility, (B, H, T, S)))

    q = _group(x.q * (1 / math.sqrt(x.q.shape[-1])), G)  # (B, G, R·T, K)
    k, v = _group(x.k, G), _group(x.v, G)  # (B, G, S, K), (B, G, S, Kv)
    scores = q @ k.swapaxes(-1, -2)  # (B, G, R·T, S)
    probs = _masked_softmax(scores.reshape(B, H, T, S), allowed).reshape(scores.shape)
    y = _ungroup(probs @ v, H)  # (B, T, H, Kv)
    return y, Residuals(q, k, v, probs, H)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, QKV]:
    """Return ``({}, QKV(d_q, d_k, d_v))`` for the cotangent g (B, T, H, Kv)."""
    expect_residuals(residuals, Residuals)
    q, k, v, probs, H = residuals
    B, G, RT, K = q.shape
    expect_cotangent(g, (B, RT * G // H, H, v.shape[-1]), q.dtype)
    g = _group(g, G)  # (B, G, R·T, Kv)
    d_v = probs.swapaxes(-1, -2) @ g  # (B, G, S, Kv), summed over the group
    d_probs = g @ v.swapaxes(-1, -2)  # (B, G, R·T, S)
    d_scores = softmax_vjp(probs, d_probs)
    d_q = (d_scores @ k) * (1 / math.sqrt(K))  # (B, G, R·T, K)
    d_k = d_scores.swapaxes(-1, -2) @ q  # (B, G, S, K), summed over the group; q is over √K
    return {}, QKV(_ungroup(d_q, H), _ungroup(d_k, G), _ungroup(d_v, G))


def weights(residuals: Residuals) -> Array:
    """Return the attention weights P (B, H, T, S) of a forward, for statistics and pictures."""
    B, _, _, S = residuals.probs.shape
    return residuals.probs.reshape(B, residuals.n_heads, -1, S)


def _masked_softmax(scores: Array, allowed: Array | None) -> Array:
    """Return the softmax of each row over its allowed entries, in place; zero where none is."""
    sees_none: Any = False
    if allowed is not None:
        scores += np.where(allowed, 0.0, -math.inf).astype(scores.dtype)
        sees_none = ~allowed.any(axis=-1, keepdims=True)  # broadcasts to (B, H, T, 1)
    top = scores.max(axis=-1, keepdims=True, initial=-math.inf)
    np.copyto(top, 0.0, where=sees_none)
    np.exp(np.subtract(scores, top, out=scores), out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    np.copyto(total, 1.0, where=sees_none)
    scores /= total
    return scores


def _group(x: Array, n_groups: int) -> Array:
    """Stack the heads of a group as rows: (B, T, H, K) to (B, G, H/G·T, K)."""
    B, T, H, K = x.shape
    return x.swapaxes(1, 2).reshape(B, n_groups, H // n_groups * T, K)


def _ungroup(x: Array, n_heads: int) -> Array:
    """Undo `_group`: (B, G, H/G·T, K) to (B, T, H, K)."""
    B, G, rows, K = x.shape
    heads = x.reshape(B, n_heads, G * rows // n_heads, K)
    return np.ascontiguousarray(heads.swapaxes(1, 2))
