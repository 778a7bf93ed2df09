"""Self-attention: project to queries, keys and values, attend, project back.

Forward: ``qkv`` → turn queries and keys by their positions, attend → ``out``. The columns of qkv
are H query heads and G key heads of size K, and G value heads of size Kv. ``vjp`` is the forward
read upwards.

Causal attention to the whole text runs in one layer, `rotary_attention`. Anything else runs
`rotary`, then `attention` or, for long texts, `flash_attention`.

Shapes: x and y (B, T, D); ``qkv`` makes (B, T, (H + G)·K + G·Kv), ``out`` takes (B, T, H·Kv).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_choice,
    expect_inputs,
    expect_int,
    expect_params,
    expect_residuals,
)
from ..heads import CAUSAL, QKV, Visibility
from ..layers import attention as attention_layer
from ..layers import flash_attention, linear, rotary, rotary_attention
from ..prng import fold_in

__all__ = [
    "KINDS",
    "Cache",
    "Residuals",
    "Unpacked",
    "attention_weights",
    "context_flops",
    "forward",
    "init",
    "init_cache",
    "sizes",
    "split_sizes",
    "step",
    "vjp",
]

KINDS = ("auto", "materialised", "tiled")
"""How attention is computed: "materialised" keeps the weights of all queries and keys for the
backward pass; "tiled" computes them again there, so that memory does not grow with the square of
the length, in about half as much time again; "auto" tiles above `LONG` tokens."""

LONG = 1024


class Unpacked(NamedTuple):
    """What the backward of attention on unpacked heads needs."""

    rotary: rotary.Residuals | None
    attention: attention_layer.Residuals | flash_attention.Residuals


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the projections."""

    qkv: Any
    attention: rotary_attention.Residuals | Unpacked
    out: Any
    projections: tuple[Layer, Layer]


class Cache(NamedTuple):
    """The keys and values of texts so far; `step` writes to them."""

    keys: Array | None  # (B, S, G, K), turned by their positions; from the first step on
    values: Array | None  # (B, S, G, Kv)
    lengths: Array  # (B,) the positions that each text has filled
    capacity: int  # S


def init(
    key: Key | None,
    *,
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    head_size: int | None = None,
    value_size: int | None = None,
    output_scale: float = 1.0,
    qkv: Layer = linear,
    out: Layer = linear,
    dtype: Any = np.float32,
) -> Tree:
    """Draw the two projections, queries, keys and values each with their own variance.

    Args:
        key: randomness.
        d_model: D.
        n_heads: H.
        n_kv_heads: G, a divisor of H; H if not given.
        head_size: K; D/H if not given.
        value_size: Kv; K if not given.
        output_scale: multiplies the output projection.
        qkv: the layer that makes queries, keys and values.
        out: the layer that projects back.
        dtype: float32 or float64.

    Raises:
        ValueError: for numbers of heads that do not fit.
    """
    H, G, K, Kv = sizes(d_model, n_heads, n_kv_heads, head_size, value_size)
    return {
        "qkv": qkv.init(fold_in(key, 0), d_in=d_model, d_out=(H * K, G * K, G * Kv), dtype=dtype),
        "out": out.init(
            fold_in(key, 1), d_in=H * Kv, d_out=d_model, scale=output_scale, dtype=dtype
        ),
    }


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    value_size: int | None = None,
    positions: Array,
    visibility: Visibility = CAUSAL,
    rope_theta: float | None = 10000.0,
    rope_pairing: str = "interleaved",
    attention: str = "auto",
    qkv: Layer = linear,
    out: Layer = linear,
) -> tuple[Array, Residuals]:
    """Return the attended values, projected to (B, T, D).

    Args:
        params: of the projections ``qkv`` and ``out``.
        x: (B, T, D).
        n_heads: H.
        n_kv_heads: G; H if not given.
        value_size: Kv; K if not given.
        positions: of the tokens, (T,) or (B, T).
        visibility: which tokens a token may see.
        rope_theta: the base of the rotary wavelengths; None: queries and keys are not turned.
        rope_pairing: "interleaved" or "half".
        attention: one of `KINDS`.
        qkv: the layer that makes queries, keys and values.
        out: the layer that projects back.
    """
    expect_params(params, ["qkv", "out"])
    expect_inputs({}, "", x, "B T D")
    expect_choice("attention", attention, KINDS)
    tiled = attention == "tiled" or (attention == "auto" and x.shape[1] > LONG)

    packed, r_qkv = qkv.forward(params["qkv"], x)  # (B, T, (H+G)·K + G·Kv)
    heads = split_sizes(packed.shape[-1], n_heads, n_kv_heads, value_size)
    H, G, K, Kv = heads
    turning: dict[str, Any] = {"positions": positions, "theta": rope_theta, "pairing": rope_pairing}
    r_attention: rotary_attention.Residuals | Unpacked
    plain = visibility.mask is None and visibility == CAUSAL
    if plain and rope_theta is not None and Kv == K and not tiled:
        attended, r_attention = rotary_attention.forward(
            {}, packed, n_heads=H, n_kv_heads=G, **turning
        )  # (B, T, H·K)
    else:
        qk, v = _unpacked(packed, heads)
        r_rotary = None
        if rope_theta is not None:
            qk, r_rotary = rotary.forward({}, qk, **turning)
        layer = flash_attention if tiled else attention_layer
        x_core = QKV(qk[:, :, :H], qk[:, :, H:], v)
        y, r_core = layer.forward({}, x_core, visibility=visibility)
        attended, r_attention = y.reshape(*x.shape[:2], H * Kv), Unpacked(r_rotary, r_core)
    y, r_out = out.forward(params["out"], attended)
    return y, Residuals(r_qkv, r_attention, r_out, (qkv, out))


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"qkv", "out"}, d_x)`` for the cotangent g (B, T, D)."""
    expect_residuals(residuals, Residuals)
    r_qkv, r_attention, r_out, (qkv, out) = residuals
    d_out, d_attended = out.vjp(r_out, g)
    if isinstance(r_attention, rotary_attention.Residuals):
        _, d_packed = rotary_attention.vjp(r_attention, d_attended)
    else:
        d_packed = _unpacked_vjp(r_attention, d_attended)
    d_qkv, d_x = qkv.vjp(r_qkv, d_packed)
    return {"qkv": d_qkv, "out": d_out}, d_x


def _unpacked_vjp(residuals: Unpacked, g: Array) -> Array:
    r_rotary, r_core = residuals
    layer = flash_attention if isinstance(r_core, flash_attention.Residuals) else attention_layer
    B, T, width = g.shape
    Kv = r_core.v.shape[-1] - isinstance(r_core, flash_attention.Residuals)  # its column of ones
    _, (d_q, d_k, d_v) = layer.vjp(r_core, g.reshape(B, T, width // Kv, Kv))
    d_turned = np.concatenate([d_q, d_k], axis=2)  # (B, T, H+G, K)
    if r_rotary is not None:
        _, d_turned = rotary.vjp(r_rotary, d_turned)
    parts = [part.reshape(B, T, part.shape[2] * part.shape[3]) for part in (d_turned, d_v)]
    return np.concatenate(parts, axis=2)


def init_cache(params: Tree, batch: int, length: int) -> Cache:
    """Return an empty cache for that many texts of up to ``length`` tokens."""
    return Cache(None, None, np.zeros(batch, np.int64), length)


def step(
    params: Tree,
    x: Array,
    cache: Cache,
    *,
    lengths: Array | None = None,
    n_heads: int,
    n_kv_heads: int | None = None,
    value_size: int | None = None,
    visibility: Visibility = CAUSAL,
    rope_theta: float | None = 10000.0,
    rope_pairing: str = "interleaved",
    qkv: Layer = linear,
    out: Layer = linear,
) -> tuple[Array, Cache]:
    """Return the output for the next positions of each text, and the cache after them.

    Args:
        params: of the projections.
        x: (B, T, D), of the T positions after those in the cache; T is one but for prompts.
        cache: from `init_cache` or an earlier step. It is used up: the one returned shares its
            memory.
        lengths: (B,) how many of the T positions each text really has; the rest is padding.
            Default: all.
        n_heads: H, and the other settings as in `forward`; what a token sees is causal, and of
            the visibility only the window counts.
    """
    B, T, _ = x.shape
    packed, _ = qkv.forward(params["qkv"], x)  # (B, T, (H+G)·K + G·Kv)
    H, _, _, Kv = heads = split_sizes(packed.shape[-1], n_heads, n_kv_heads, value_size)
    qk, v = _unpacked(packed, heads)
    keys, values, filled, S = cache
    positions = filled[:, None] + np.arange(T)  # (B, T)
    if rope_theta is not None:
        turning: dict[str, Any] = {"theta": rope_theta, "pairing": rope_pairing}
        qk, _ = rotary.forward({}, qk, positions=positions, **turning)
    q, k = qk[:, :, :H], qk[:, :, H:]
    if keys is None or values is None:
        # In the order (B, G, S, K), in which attention multiplies without a copy.
        shapes = ((B, new.shape[2], S, new.shape[3]) for new in (k, v))
        keys, values = (np.zeros(shape, k.dtype).swapaxes(1, 2) for shape in shapes)
    rows = np.arange(B)[:, None]
    keys[rows, positions], values[rows, positions] = k, v
    stop = int(positions.max(initial=-1)) + 1
    seen = np.arange(stop) <= positions[:, :, None]  # (B, T, stop)
    if visibility.window is not None:
        seen &= np.arange(stop) > positions[:, :, None] - visibility.window
    mask = None if seen.all() else seen[:, None]
    attended, _ = attention_layer.forward(
        {}, QKV(q, keys[:, :stop], values[:, :stop]), visibility=Visibility(mask=mask)
    )  # (B, T, H, Kv)
    y, _ = out.forward(params["out"], attended.reshape(B, T, H * Kv))
    return y, Cache(keys, values, filled + (T if lengths is None else lengths), S)


def attention_weights(residuals: Residuals) -> Array:
    """Return the attention weights (B, H, T, T) of a forward, for statistics."""
    if isinstance(residuals.attention, rotary_attention.Residuals):
        return rotary_attention.weights(residuals.attention)
    core = residuals.attention.attention
    if isinstance(core, flash_attention.Residuals):
        return flash_attention.weights(core)
    return attention_layer.weights(core)


def context_flops(
    context: int,
    *,
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    head_size: int | None = None,
    value_size: int | None = None,
) -> int:
    """Return the arithmetic of scores and values for a token that sees so many."""
    H, _, K, Kv = sizes(d_model, n_heads, n_kv_heads, head_size, value_size)
    return 2 * context * H * (K + Kv)


def sizes(
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
    width: int, n_heads: int, n_kv_heads: int | None, value_size: int | None
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
            "qkv must make (n_heads + n_kv_heads)·K + n_kv_heads·value_size columns, and "
            f"n_kv_heads must divide n_heads: got {width} columns, n_heads={H}, n_kv_heads={G}, "
            f"value_size={value_size}; pass the settings of init"
        )
    return H, G, K, own or K


def _unpacked(packed: Array, heads: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """Return views of (B, T, (H+G)·K + G·Kv): queries and keys (B, T, H+G, K), and values."""
    H, G, K, Kv = heads
    B, T, _ = packed.shape
    width = (H + G) * K
    qk, v = packed[..., :width], packed[..., width:]
    return qk.reshape(B, T, H + G, K), v.reshape(B, T, G, Kv)


def _near_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below = [d for d in divisors if d < wanted][-1:]
    above = [d for d in divisors if d > wanted][:1]
    return " or ".join(map(str, below + above))
