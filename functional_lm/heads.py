"""What the attention layers share: queries, keys and values, and who sees whom."""

from typing import Any, NamedTuple

import numpy as np

from .contract import Array, expect_bool, expect_inputs, expect_int

__all__ = ["QKV", "Visibility", "expect_qkv", "expect_visibility", "visible"]


class QKV(NamedTuple):
    """The input of attention, and its cotangent. Values may be of another size than keys."""

    q: Array  # (B, T, H, K)
    k: Array  # (B, S, G, K)
    v: Array  # (B, S, G, Kv)


class Visibility(NamedTuple):
    """Which keys a query may attend to. Query t stands at the position t + offset of the keys.

    Attributes:
        causal: see only the keys up to one's own position.
        offset: the position of the first query among the keys; needs ``causal``.
        window: see only the last so many of those keys, one's own among them; needs ``causal``.
        mask: booleans that broadcast to (B, H, T, S), true where a query may see a key.
    """

    causal: bool = False
    offset: int = 0
    window: int | None = None
    mask: Array | None = None


FULL, CAUSAL = Visibility(), Visibility(causal=True)


def expect_qkv(x: Any) -> tuple[int, int, int, int, int]:
    """Require queries, keys and values that fit each other, and return B, T, S, H and G.

    Raises:
        TypeError: for dtypes that are not float32 or float64, or differ.
        ValueError: for shapes that do not fit, or an H that is not a multiple of G.
    """
    if not isinstance(x, QKV):
        raise TypeError(f"x must be QKV(q, k, v): got {type(x).__name__}; pass QKV(*x)")
    q, k, v = x
    expect_inputs({"k": k, "v": v}, "k: B S G K, v: B S G Kv", q, "B T H K", "q")
    (B, T, H, K), (_, S, G, value_size) = q.shape, v.shape
    if not (H and G and K and value_size) or H % G:
        raise ValueError(
            "query heads must be a multiple of key/value heads, and no size zero: "
            f"got H={H}, G={G}, K={K}, Kv={value_size}; repeat or drop heads"
        )
    return B, T, S, H, G


def expect_visibility(visibility: Any, shape: tuple[int, int, int, int]) -> Visibility:
    """Require a `Visibility` for (B, H, T, S), and return it with plain settings.

    Raises:
        TypeError: for settings of another type, or a mask that is not boolean.
        ValueError: for an offset or a window without ``causal``, or a mask that does not broadcast.
    """
    if not isinstance(visibility, Visibility):
        raise TypeError(
            f"visibility must be a Visibility: got {visibility!r}; pass Visibility(causal=True)"
        )
    causal, offset, window, mask = visibility
    causal = expect_bool("causal", causal)
    offset = expect_int("offset", offset, minimum=None)
    window = None if window is None else expect_int("window", window)
    for name, value in (("offset", offset), ("window", window)):
        if value and not causal:
            raise ValueError(f"{name} needs causal attention: got {value}; pass causal=True too")
    if mask is not None:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            received = getattr(mask, "dtype", type(mask).__name__)
            raise TypeError(
                f"mask must be an array of booleans: got {received}; pass mask.astype(bool)"
            )
        try:
            np.broadcast_to(mask, shape)
        except ValueError:
            raise ValueError(
                f"mask must broadcast to (B, H, T, S) = {shape}: got {mask.shape}; "
                "add axes of size 1"
            ) from None
    return Visibility(causal, offset, window, mask)


def visible(n_queries: int, n_keys: int, visibility: Visibility) -> Array | None:
    """Return booleans that broadcast to (..., T, S), or None where every query sees every key.

    >>> visible(4, 4, Visibility(causal=True, window=2)).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 1, 1]])
    """
    causal, offset, window, mask = visibility
    if not causal:
        return mask
    behind = np.arange(n_queries)[:, None] + offset - np.arange(n_keys)  # how far a key is
    allowed = behind >= 0
    if window is not None:
        allowed &= behind < window
    return allowed if mask is None else allowed & mask
