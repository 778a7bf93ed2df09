"""What the attention layers share: queries, keys and values, and which key a query may see."""

from typing import Any, NamedTuple

import numpy as np

from .contract import Array, expect_bool, expect_floating, expect_int, expect_shape


class QKV(NamedTuple):
    """The input of attention, and its cotangent."""

    q: Array  # (B, T, H, K)
    k: Array  # (B, S, G, K)
    v: Array  # (B, S, G, K)


def expect_qkv(x: Any) -> tuple[int, int, int, int, int, int]:
    """Require queries, keys and values that fit each other, and return B, T, S, H, G and K.

    Raises:
        TypeError: for dtypes that are not float32 or float64, or differ.
        ValueError: for shapes that do not fit, or H that is no multiple of G.
    """
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
    return B, T, S, H, G, K


def expect_visibility(
    shape: tuple[int, int, int, int], causal: Any, query_offset: Any, mask: Any
) -> tuple[bool, int]:
    """Require settings that say who sees whom among (B, H, T, S); return the first two, plain.

    Raises:
        TypeError: for settings of another type, or a mask that is not boolean.
        ValueError: for an offset without ``causal``, or a mask that does not broadcast.
    """
    causal = expect_bool("causal", causal)
    query_offset = expect_int("query_offset", query_offset, minimum=None)
    if query_offset and not causal:
        raise ValueError(
            f"query_offset belongs to causal attention: got {query_offset}; pass causal=True"
        )
    if mask is None:
        return causal, query_offset
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
    return causal, query_offset


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


def visible(
    n_queries: int, n_keys: int, causal: bool, query_offset: int, mask: Array | None
) -> Array | None:
    """Return booleans that broadcast to (..., T, S), or None where every query sees every key."""
    allowed = causal_mask(n_queries, n_keys, query_offset=query_offset) if causal else None
    if mask is None:
        return allowed
    return mask if allowed is None else allowed & mask
