"""What the attention layers share: queries, keys and values, who sees whom, and from how far."""

from typing import Any, NamedTuple

import numpy as np

from .contract import (
    Array,
    Key,
    Tree,
    expect_bool,
    expect_dtype,
    expect_inputs,
    expect_int,
    expect_number,
)
from .prng import bernoulli

__all__ = [
    "QKV",
    "Visibility",
    "alibi_bias",
    "alibi_slopes",
    "behind_prefix",
    "distances",
    "dropout_multiplier",
    "expect_attention",
    "expect_qkv",
    "expect_visibility",
    "head_sizes",
    "init_sinks",
    "split_sizes",
    "visible",
]


class QKV(NamedTuple):
    """The input of attention, and its cotangent. Values may be of another size than keys."""

    q: Array  # (B, T, H, K)
    k: Array  # (B, S, G, K)
    v: Array  # (B, S, G, Kv)


class Visibility(NamedTuple):
    """Which keys a query may attend to. Query t stands at the position t + offset of the keys.

    Attributes:
        causal: see only the keys up to one's own position.
        offset: the position of the first query among the keys, or (B,) one for each example; needs
            ``causal``.
        window: see only the last so many of those keys, one's own among them; needs ``causal``.
        mask: booleans that broadcast to (B, H, T, S), true where a query may see a key.
        first: integers (B, T), the first key that each query sees, such as that where its document
            begins; needs ``causal``.
    """

    causal: bool = False
    offset: int | Array = 0
    window: int | None = None
    mask: Array | None = None
    first: Array | None = None


FULL, CAUSAL = Visibility(), Visibility(causal=True)


def head_sizes(
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    head_size: int | None = None,
    value_size: int | None = None,
) -> tuple[int, int, int, int]:
    """Return H, G, K and Kv of settings, any of the last three may be None.

    Raises:
        ValueError: for a G that does not divide H, or an H that does not divide D without a K.
    """
    D, H = expect_int("d_model", d_model), expect_int("n_heads", n_heads)
    G = H if n_kv_heads is None else expect_int("n_kv_heads", n_kv_heads)
    if H % G:
        raise ValueError(
            f"n_kv_heads must divide n_heads: got n_kv_heads={G}, n_heads={H}; "
            f"try {_near_divisors(H, G)}"
        )
    if head_size is None and D % H:
        raise ValueError(
            f"n_heads must divide d_model: got n_heads={H}, d_model={D}; "
            f"try {_near_divisors(D, H)}, or give head_size"
        )
    K = D // H if head_size is None else expect_int("head_size", head_size)
    return H, G, K, K if value_size is None else expect_int("value_size", value_size)


def split_sizes(
    width: int, n_heads: int, n_kv_heads: int | None, value_size: int | None = None
) -> tuple[int, int, int, int]:
    """Return H, G, K and Kv of queries, keys and values that are so wide together.

    Raises:
        ValueError: if there is no such K.
    """
    H = expect_int("n_heads", n_heads)
    G = H if n_kv_heads is None else expect_int("n_kv_heads", n_kv_heads)
    own = 0 if value_size is None else expect_int("value_size", value_size)
    K, rest = divmod(width - G * own, H + G if own else H + 2 * G)
    if rest or K < 1 or H % G:
        raise ValueError(
            "queries, keys and values must have (n_heads + n_kv_heads)·K + n_kv_heads·value_size "
            f"columns, and n_kv_heads must divide n_heads: got {width} columns, n_heads={H}, "
            f"n_kv_heads={G}, value_size={value_size}; pass the settings of init"
        )
    return H, G, K, own or K


def init_sinks(key: Key | None = (), *, n_sinks: int = 0, dtype: Any = np.float32) -> Tree:
    """Return ``{}``, or ``{"sinks"}`` of zeros for the H heads; the key is not used."""
    dtype = expect_dtype(dtype)
    n_sinks = expect_int("n_sinks", n_sinks, minimum=0)
    return {"sinks": np.zeros(n_sinks, dtype)} if n_sinks else {}


def expect_attention(
    params: Tree, x: Any, visibility: Any, soft_cap: Any, alibi: Any, dropout: Any
) -> tuple[int, int, int, int, int, Visibility]:
    """Check the input and settings of attention, and return B, T, S, H, G and the visibility.

    Raises:
        TypeError: for anything of another type.
        ValueError: for shapes that do not fit, or a setting out of its range.
    """
    B, T, S, H, G = expect_qkv(x)
    expect_inputs(params, "sinks?: H", x.q, "B T H K", "q")
    if soft_cap is not None:
        expect_number("soft_cap", soft_cap, low=1e-30)
    expect_bool("alibi", alibi)
    expect_number("dropout", dropout, low=0.0, high=1.0)
    return B, T, S, H, G, expect_visibility(visibility, (B, H, T, S))


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
        ValueError: for an offset, a window or first keys without ``causal``, or a mask that does
            not broadcast.
    """
    if not isinstance(visibility, Visibility):
        raise TypeError(
            f"visibility must be a Visibility: got {visibility!r}; pass Visibility(causal=True)"
        )
    causal, offset, window, mask, first = visibility
    causal = expect_bool("causal", causal)
    if not isinstance(offset, np.ndarray):
        offset = expect_int("offset", offset, minimum=None)
    elif offset.dtype.kind not in "iu" or offset.shape != shape[:1]:
        raise ValueError(
            f"offset must be an int, or integers (B,) = {shape[:1]}: got {offset.dtype} "
            f"{offset.shape}; pass one for each example"
        )
    window = None if window is None else expect_int("window", window)
    for name, value in (("offset", offset), ("window", window), ("first", first)):
        if np.any(value) and not causal:
            raise ValueError(f"{name} needs causal attention: got {value}; pass causal=True too")
    if first is not None:
        kind = getattr(first, "dtype", np.dtype(object)).kind
        if kind not in "iu" or first.shape != (shape[0], shape[2]):
            raise ValueError(
                f"first must be integers (B, T) = {(shape[0], shape[2])}: got "
                f"{getattr(first, 'dtype', type(first).__name__)} {np.shape(first)}; pass one for "
                "each query"
            )
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
    return Visibility(causal, offset, window, mask, first)


def visible(n_queries: int, n_keys: int, visibility: Visibility) -> Array | None:
    """Return booleans that broadcast to (..., T, S), or None where every query sees every key.

    >>> visible(4, 4, Visibility(causal=True, window=2)).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 1, 1]])
    """
    causal, offset, window, mask, first = visibility
    if not causal:
        return mask
    behind = distances(n_queries, n_keys, offset)
    allowed = behind >= 0
    if window is not None:
        allowed &= behind < window
    if first is not None:
        allowed = allowed & (np.arange(n_keys) >= first[:, None, :, None])
    return allowed if mask is None else allowed & mask


def behind_prefix(visibility: Visibility, size: int, n_queries: int, n_keys: int) -> Visibility:
    """Return who sees whom once that many keys, which all queries see, stand before ``n_keys``.

    >>> visible(3, 4, behind_prefix(Visibility(causal=True, window=1), 1, 3, 3)).astype(int)
    array([[1, 1, 0, 0],
           [1, 0, 1, 0],
           [1, 0, 0, 1]])

    Raises:
        ValueError: if it is not causal.
    """
    causal, offset, window, mask, first = visibility
    if not causal:
        raise ValueError("a prefix needs causal attention: got causal=False; pass causal=True")
    if window is not None or mask is not None or first is not None:
        allowed = np.asarray(visible(n_queries, n_keys, visibility))
        front = np.ones((*allowed.shape[:-1], size), bool)
        mask = np.concatenate([front, allowed], axis=-1)
    return Visibility(True, offset + size, None, mask)


def distances(n_queries: int, n_keys: int, offset: int | Array) -> Array:
    """Return how far each key lies behind each query: (T, S), or (B, 1, T, S) for offsets (B,)."""
    if isinstance(offset, np.ndarray):
        offset = offset[:, None, None, None]
    return np.arange(n_queries)[:, None] + offset - np.arange(n_keys)


def alibi_slopes(n_heads: int) -> Array:
    """Return the slope of each head, (H,) float64 (Press et al. 2022, section 3).

    They are 2^(−8/n), 2^(−16/n), ..., 2^(−8) for a power of two n. For another H, they are those of
    the largest n below it, then every other one of those of 2n.

    >>> alibi_slopes(3)
    array([0.0625    , 0.00390625, 0.25      ])
    """
    n = 2 ** (n_heads.bit_length() - 1)
    shares = np.r_[np.arange(1, n + 1) / n, np.arange(1, 2 * (n_heads - n), 2) / (2 * n)]
    return 2.0 ** (-8 * shares)


def alibi_bias(slopes: Array | float, distance: Array, dtype: Any) -> Array:
    """Return −slope·|distance|, what ALiBi adds to the scores; slopes (H, 1, 1), or one of them."""
    return (-slopes * np.abs(distance)).astype(dtype)


def dropout_multiplier(
    key: Key | None, rate: float, shape: tuple[int, ...], dtype: Any, start: int = 0
) -> Array | None:
    """Return 1/(1 − rate) for each attention weight that is kept and 0 for the others.

    Without a key, or at rate 0, it is None: all are kept. The draws are those of all the weights
    (B, H, T, S) from entry ``start`` on, so that they do not depend on tiles.
    """
    if key is None or rate == 0.0:
        return None
    kept = bernoulli(key, shape, p=1.0 - rate, start=start)
    return kept.astype(dtype) * (1.0 / (1.0 - rate) if rate < 1.0 else 0.0)


def _near_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below = [d for d in divisors if d < wanted][-1:]
    above = [d for d in divisors if d > wanted][:1]
    return " or ".join(map(str, below + above))
