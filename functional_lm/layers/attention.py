"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with grouped key/value heads
(Ainslie et al. 2023).

Forward. For one head with queries Q (T, K), keys and values K, V (S, K):

    A = Q·Kᵀ/√K      P = softmax of each row of A, over the keys that the query may see      O = P·V

Query head h reads key/value head h // R with R = H/G: the R query heads of a group are R·T rows
that share one K and V.

VJP. With cotangent g of O, reading the forward upwards:

    d_V = Pᵀ·g        d_P = g·Vᵀ
    d_A = P·(d_P − Σ over keys of d_P·P)              (softmax; zero where P is zero)
    d_Q = d_A·K/√K    d_K = d_Aᵀ·Q/√K

The rows of a group share K and V, so the products Pᵀ·g and d_Aᵀ·Q over all R·T rows are the sum
over the group. A row that may see no key has P = 0: its output and its gradients are zero.

Shapes: x is ``QKV(q, k, v)`` with q (B, T, H, K), k and v (B, S, G, K); y (B, T, H, K).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_bool,
    expect_cotangent,
    expect_dtype,
    expect_floating,
    expect_int,
    expect_params,
    expect_shape,
)
from ..numerics import softmax_vjp


class QKV(NamedTuple):
    """The input of attention, and its cotangent."""

    q: Array  # (B, T, H, K)
    k: Array  # (B, S, G, K)
    v: Array  # (B, S, G, K)


class Residuals(NamedTuple):
    """What `vjp` needs; the R = H/G query heads of a group are stacked as R·T rows."""

    q: Array  # (B, G, R·T, K), over √K
    k: Array  # (B, G, S, K)
    v: Array  # (B, G, S, K)
    probs: Array  # (B, G, R·T, S)
    n_heads: int


def init(key: Key = (), *, dtype: Any = np.float32) -> Tree:
    """Return ``{}``: this layer has no parameters."""
    expect_dtype(dtype)
    return {}


def forward(
    params: Tree, x: QKV, *, causal: bool = False, query_offset: int = 0, mask: Array | None = None
) -> tuple[Array, Residuals]:
    """Return each query's mean of the values, weighted by its match with the keys; (B, T, H, K).

    Args:
        params: ``{}``.
        x: queries, keys and values.
        causal: let query t see the keys up to t + query_offset only.
        query_offset: the position of the first query among the keys.
        mask: booleans that broadcast to (B, H, T, S), true where a query may see a key.

    Raises:
        TypeError: for dtypes that are not float32 or float64, or differ; for a mask that is not
            boolean.
        ValueError: for shapes that do not fit, or H that is no multiple of G.
    """
    expect_params(params)
    if not isinstance(x, QKV):
        raise TypeError(f"x must be QKV(q, k, v): got {type(x).__name__}; pass QKV(*x)")
    q, k, v = x
    expect_floating(q=q, k=k, v=v)
    B, T, H, K = expect_shape("q", q, "B T H K")
    _, S, G, _ = expect_shape("k", k, "B S G K", B=B, K=K)
    expect_shape("v", v, "B S G K", B=B, S=S, G=G, K=K)
    if not (H and G and K) or H % G:
        raise ValueError(
            "query heads must be a multiple of key/value heads, and no size zero: "
            f"got H={H}, G={G}, K={K}; repeat or drop heads"
        )
    allowed = _allowed((B, H, T, S), causal, query_offset, mask)

    q = _group(q * (1 / math.sqrt(K)), G)  # (B, G, R·T, K)
    k, v = _group(k, G), _group(v, G)  # (B, G, S, K)
    scores = q @ k.swapaxes(-1, -2)  # (B, G, R·T, S)
    probs = _masked_softmax(scores.reshape(B, H, T, S), allowed).reshape(scores.shape)
    y = _ungroup(probs @ v, H)  # (B, T, H, K)
    return y, Residuals(q, k, v, probs, H)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, QKV]:
    """Return ``({}, QKV(d_q, d_k, d_v))`` for the cotangent g (B, T, H, K)."""
    q, k, v, probs, H = residuals
    B, G, RT, K = q.shape
    expect_cotangent(g, (B, RT * G // H, H, K), q.dtype)
    g = _group(g, G)  # (B, G, R·T, K)
    d_v = probs.swapaxes(-1, -2) @ g  # (B, G, S, K), summed over the group
    d_probs = g @ v.swapaxes(-1, -2)  # (B, G, R·T, S)
    d_scores = softmax_vjp(probs, d_probs)
    d_q = (d_scores @ k) * (1 / math.sqrt(K))  # (B, G, R·T, K)
    d_k = d_scores.swapaxes(-1, -2) @ q  # (B, G, S, K), summed over the group; q is over √K
    return {}, QKV(_ungroup(d_q, H), _ungroup(d_k, G), _ungroup(d_v, G))


def causal_mask(n_queries: int, n_keys: int | None = None, *, query_offset: int = 0) -> Array:
    """Return booleans (T, S), true where query t may see key s: s ≤ t + query_offset.

    >>> causal_mask(3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    T = expect_int("n_queries", n_queries, minimum=0)
    S = T if n_keys is None else expect_int("n_keys", n_keys, minimum=0)
    return np.arange(S) <= np.arange(T)[:, None] + query_offset


def _allowed(
    shape: tuple[int, int, int, int], causal: bool, query_offset: int, mask: Array | None
) -> Array | None:
    """Return booleans that broadcast to (B, H, T, S), or None where every query sees every key."""
    causal = expect_bool("causal", causal)
    query_offset = expect_int("query_offset", query_offset, minimum=None)
    if query_offset and not causal:
        raise ValueError(
            f"query_offset belongs to causal attention: got {query_offset}; pass causal=True"
        )
    allowed = causal_mask(shape[2], shape[3], query_offset=query_offset) if causal else None
    if mask is None:
        return allowed
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        received = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(
            f"mask must be an array of booleans: got {received}; pass mask.astype(bool)"
        )
    try:
        np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(
            f"mask must broadcast to (B, H, T, S) = {shape}: got {mask.shape}; add axes of size 1"
        ) from None
    return mask if allowed is None else allowed & mask


def _masked_softmax(scores: Array, allowed: Array | None) -> Array:
    """Return the softmax of each row over its allowed entries, in place; zero where none is."""
    if allowed is None:
        allowed = np.ones(1, bool)
    else:
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
