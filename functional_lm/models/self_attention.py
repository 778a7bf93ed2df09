"""Self-attention with rotary positions: project to queries, keys and values, attend, project back.

Forward: ``qkv`` → turn queries and keys, attend → ``out``. The columns of ``qkv`` are H query
heads, G key heads and G value heads of size K each. ``vjp`` is the forward read upwards.

What is in the middle is `rotary_attention`; with a mask, or not causal, `rotary` and `attention`;
for long texts `rotary` and `flash_attention`.

Shapes: x and y (B, T, D); ``qkv`` (D, (H + 2G)·K), ``out`` (H·K, D).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_choice,
    expect_dtype,
    expect_floating,
    expect_int,
    expect_params,
    expect_shape,
)
from ..layers import attention as attention_layer
from ..layers import flash_attention, linear, rotary, rotary_attention
from ..layers.attention import QKV
from ..prng import fold_in, normal

KINDS = ("auto", "materialised", "tiled")
"""How attention is computed: "materialised" keeps the weights of all queries and keys for the
backward pass; "tiled" computes them again there, so that memory does not grow with the square of
the length, in about half as much time again; "auto" tiles above `LONG` tokens."""

LONG = 1024


class Unpacked(NamedTuple):
    """What the backward of attention on unpacked heads needs."""

    rotary: rotary.Residuals
    attention: attention_layer.Residuals | flash_attention.Residuals


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer."""

    qkv: linear.Residuals
    attention: rotary_attention.Residuals | Unpacked
    out: linear.Residuals


def init(
    key: Key,
    *,
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    output_scale: float = 1.0,
    dtype: Any = np.float32,
) -> Tree:
    """Draw query, key, value and output matrices, each from N(0, 2/(d_in + d_out)).

    Args:
        key: randomness.
        d_model: D.
        n_heads: H, a divisor of D; the head size is K = D/H.
        n_kv_heads: G, a divisor of H; H if not given.
        output_scale: multiplies the output matrix.
        dtype: float32 or float64.
    """
    dtype = expect_dtype(dtype)
    D, H = expect_int("d_model", d_model), expect_int("n_heads", n_heads)
    G = H if n_kv_heads is None else expect_int("n_kv_heads", n_kv_heads)
    expect_heads(D, H, G)
    kv_size = G * (D // H)
    kv_std = (2 / (D + kv_size)) ** 0.5
    projections = [
        normal(fold_in(key, 0), (D, D), scale=(2 / (D + D)) ** 0.5, dtype=dtype),
        normal(fold_in(key, 1), (D, kv_size), scale=kv_std, dtype=dtype),
        normal(fold_in(key, 2), (D, kv_size), scale=kv_std, dtype=dtype),
    ]
    out = normal(fold_in(key, 3), (D, D), scale=output_scale * (2 / (D + D)) ** 0.5, dtype=dtype)
    return {"qkv": np.concatenate(projections, axis=1), "out": out}


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    positions: Array,
    causal: bool = True,
    mask: Array | None = None,
    rope_theta: float = 10000.0,
    rope_pairing: str = "interleaved",
    attention: str = "auto",
) -> tuple[Array, Residuals]:
    """Return the attended values, projected to (B, T, D).

    Args:
        params: ``qkv`` and ``out``.
        x: (B, T, D).
        n_heads: H.
        n_kv_heads: G; H if not given.
        positions: of the tokens, (T,) or (B, T).
        causal: let a token see itself and those before it only.
        mask: booleans that broadcast to (B, H, T, T), true where a token may see another.
        rope_theta: the base of the rotary wavelengths.
        rope_pairing: "interleaved" or "half".
        attention: one of `KINDS`.

    Raises:
        TypeError: for dtypes that are not float32 or float64, or differ.
        ValueError: for shapes or settings that do not fit.
    """
    expect_params(params, ["qkv", "out"])
    expect_floating(x=x, qkv=params["qkv"], out=params["out"])
    _, T, _ = expect_shape("x", x, "B T D")
    heads = _head_sizes(params, n_heads, n_kv_heads)
    expect_choice("attention", attention, KINDS)
    tiled = attention == "tiled" or (attention == "auto" and T > LONG)
    turning: dict[str, Any] = {
        "positions": positions,
        "theta": rope_theta,
        "pairing": rope_pairing,
    }

    packed, r_qkv = linear.forward({"weight": params["qkv"]}, x)  # (B, T, (H+2G)·K)
    r_attention: rotary_attention.Residuals | Unpacked
    if causal is True and mask is None and not tiled:
        attended, r_attention = rotary_attention.forward(
            {}, packed, n_heads=heads[0], n_kv_heads=heads[1], **turning
        )  # (B, T, H·K)
    else:
        attended, r_attention = _attend(packed, heads, turning, tiled, causal, mask)
    y, r_out = linear.forward({"weight": params["out"]}, attended)
    return y, Residuals(r_qkv, r_attention, r_out)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"qkv", "out"}, d_x)`` for the cotangent g (B, T, D)."""
    r_qkv, r_attention, r_out = residuals
    d_out, d_attended = linear.vjp(r_out, g)
    if isinstance(r_attention, rotary_attention.Residuals):
        _, d_packed = rotary_attention.vjp(r_attention, d_attended)
    else:
        d_packed = _attend_vjp(r_attention, d_attended)
    d_qkv, d_x = linear.vjp(r_qkv, d_packed)
    return {"qkv": d_qkv["weight"], "out": d_out["weight"]}, d_x


def keys_and_values(residuals: Residuals) -> tuple[Array, Array]:
    """Return the turned keys and the values (B, T, G, K) of a causal forward without a mask.

    Raises:
        ValueError: for residuals of materialised attention that was not causal or had a mask.
    """
    if isinstance(residuals.attention, rotary_attention.Residuals):
        turned, v = residuals.attention.turned, residuals.attention.v
        return turned[:, :, turned.shape[2] - v.shape[2] :], v
    tiled = residuals.attention.attention
    if not isinstance(tiled, flash_attention.Residuals):
        raise ValueError(
            "keys_and_values needs causal attention without a mask: got residuals of attention "
            "over all pairs or with a mask; pass causal=True and no mask to forward"
        )
    return tiled.k, tiled.v[..., :-1]  # the last column is one


def _attend(
    packed: Array,
    heads: tuple[int, int, int],
    turning: dict[str, Any],
    tiled: bool,
    causal: bool,
    mask: Array | None,
) -> tuple[Array, Unpacked]:
    """Unpack the heads, turn queries and keys, attend: (B, T, (H+2G)·K) to (B, T, H·K)."""
    H, G, K = heads
    B, T, _ = packed.shape
    unpacked = packed.reshape(B, T, H + 2 * G, K)
    turned, r_rotary = rotary.forward({}, unpacked[:, :, : H + G], **turning)
    qkv = QKV(turned[:, :, :H], turned[:, :, H:], unpacked[:, :, H + G :])
    layer = flash_attention if tiled else attention_layer
    y, r_attention = layer.forward({}, qkv, causal=causal, mask=mask)
    return y.reshape(B, T, H * K), Unpacked(r_rotary, r_attention)


def _attend_vjp(residuals: Unpacked, g: Array) -> Array:
    r_rotary, r_attention = residuals
    B, T, width = g.shape
    K = r_rotary.shape[-1]
    g = g.reshape(B, T, width // K, K)
    if isinstance(r_attention, flash_attention.Residuals):
        _, (d_q, d_k, d_v) = flash_attention.vjp(r_attention, g)
    else:
        _, (d_q, d_k, d_v) = attention_layer.vjp(r_attention, g)
    _, d_turned = rotary.vjp(r_rotary, np.concatenate([d_q, d_k], axis=2))  # (B, T, H+G, K)
    d_packed = np.concatenate([d_turned, d_v], axis=2)
    return d_packed.reshape(B, T, math.prod(d_packed.shape[2:]))


def named_slices(params: Tree, *, n_heads: int, n_kv_heads: int | None = None) -> dict[str, Array]:
    """Return views: ``query`` (D, H·K), ``key`` and ``value`` (D, G·K), ``out`` (H·K, D)."""
    H, G, K = _head_sizes(params, n_heads, n_kv_heads)
    query, key, value = np.split(params["qkv"], [H * K, (H + G) * K], axis=1)
    return {"query": query, "key": key, "value": value, "out": params["out"]}


def expect_heads(d_model: int, n_heads: int, n_kv_heads: int) -> None:
    """Require that H divides D and G divides H.

    Raises:
        ValueError: with the numbers that would do.
    """
    if d_model % n_heads:
        raise ValueError(
            f"n_heads must divide d_model: got n_heads={n_heads}, d_model={d_model}; "
            f"try {_near_divisors(d_model, n_heads)}"
        )
    if n_heads % n_kv_heads:
        raise ValueError(
            f"n_kv_heads must divide n_heads: got n_kv_heads={n_kv_heads}, n_heads={n_heads}; "
            f"try {_near_divisors(n_heads, n_kv_heads)}"
        )


def _near_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below = [d for d in divisors if d < wanted][-1:]
    above = [d for d in divisors if d > wanted][:1]
    return " or ".join(map(str, below + above))


def _head_sizes(params: Tree, n_heads: int, n_kv_heads: int | None) -> tuple[int, int, int]:
    """Return (H, G, K), after checking the shapes of the two matrices against them."""
    H = expect_int("n_heads", n_heads)
    G = H if n_kv_heads is None else expect_int("n_kv_heads", n_kv_heads)
    width, D = expect_shape("out", params["out"], "HK D")
    expect_heads(width, H, G)
    K = width // H
    expect_shape("qkv", params["qkv"], "D (H+2G)·K", D=D, **{"(H+2G)·K": (H + 2 * G) * K})
    return H, G, K
