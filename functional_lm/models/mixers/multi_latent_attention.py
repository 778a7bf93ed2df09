"""Multi-head latent attention: keys and values of all heads from one small vector (DeepSeek-V2).

Forward, with the names of the paper for the parts of the matrices:

    q                  W^Q, or q_down (W^DQ) → q_norm → q (W^UQ | W^QR)
    latent, shared     kv_down (W^DKV | W^KR), of which the latent → kv_norm
    keys, values       kv (W^UK | W^UV) of the latent
    rotary parts       of the queries, and of one key that all heads share, turned by position
    y                  attention of [content | rotary part] over √(K + R) → out

``vjp`` is the forward read upwards. Decoding keeps only the latent and the shared rotary key. As
q·(W·c) = (q·W)·c, it takes the queries through W^UK and attends to the latents themselves: one key
head of size C + 1 + R for all query heads, whose constant 1 meets the bias. W^UV follows behind the
attention.

Shapes: x and y (B, T, D); latents (B, T, C), C = ``kv_rank``. H heads have contents of size K,
rotary parts of size R and values of size Kv. ``q`` makes (B, T, H·K + H·R), ``kv_down``
(B, T, C + R), ``kv`` (B, T, H·K + H·Kv), and ``out`` takes (B, T, H·Kv).
Source: DeepSeek-AI 2024, "DeepSeek-V2", section 2.1; the norms, section 3.1.2.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ...compose import pick
from ...contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_inputs,
    expect_int,
    expect_params,
    expect_residuals,
)
from ...heads import CAUSAL, QKV, Visibility, head_sizes
from ...layers import attention as attention_layer
from ...layers import flash_attention, linear, rms_norm, rotary
from ...prng import fold_in
from .self_attention import core_for

__all__ = [
    "Cache",
    "Parts",
    "Residuals",
    "attention_weights",
    "context_flops",
    "forward",
    "init",
    "init_cache",
    "jvp",
    "step",
    "vjp",
]


class Parts(NamedTuple):
    """Something for each layer: its residuals, or the layer itself. None where it is missing."""

    q_down: Any
    q_norm: Any
    q: Any
    kv_down: Any
    kv_norm: Any
    kv: Any
    out: Any


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the layers."""

    parts: Parts
    rotary: rotary.Residuals
    attention: attention_layer.Residuals | flash_attention.Residuals
    core: Any  # `attention` or `flash_attention`
    layers: Parts
    sizes: tuple[int, int, int, int]  # H, K, R, Kv


class Cache(NamedTuple):
    """The latents of texts so far; `step` writes to them."""

    latents: Array | None  # (B, S, C + 1 + R): latent, 1, rotary key; from the first step on
    up: Array | None  # (C + 1, H·K + H·Kv): the matrix of ``kv``, and its bias in the last row
    lengths: Array  # (B,) the positions that each text has filled
    capacity: int  # S


def init(
    key: Key | None,
    *,
    d_model: int,
    n_heads: int,
    kv_rank: int,
    rope_size: int,
    q_rank: int | None = None,
    head_size: int | None = None,
    value_size: int | None = None,
    output_scale: float = 1.0,
    sinks: bool = False,
    q_down: Layer = linear,
    q_norm: Layer = rms_norm,
    q: Layer = linear,
    kv_down: Layer = linear,
    kv_norm: Layer = rms_norm,
    kv: Layer = linear,
    out: Layer = linear,
    dtype: Any = np.float32,
) -> Tree:
    """Draw the projections, each part of a matrix with its own variance.

    Args:
        key: randomness.
        d_model: D.
        n_heads: H.
        kv_rank: C, the size of the latent of keys and values.
        rope_size: R, of the rotary part of queries and keys.
        q_rank: the size of a latent of the queries; not given: they have none.
        head_size: K, of the other part of queries and keys; D/H if not given.
        value_size: Kv; K if not given.
        output_scale: multiplies the output projection.
        sinks: whether each head has an attention sink; see `attention`.
        q_down: the layer that makes the latent of the queries.
        q_norm: the norm of that latent.
        q: the layer that makes queries.
        kv_down: the layer that makes the latent of keys and values, and the rotary key.
        kv_norm: the norm of that latent.
        kv: the layer that makes keys and values.
        out: the layer that projects back.
        dtype: float32 or float64.
    """
    H, _, K, Kv = head_sizes(d_model, n_heads, None, head_size, value_size)
    C, R = expect_int("kv_rank", kv_rank), expect_int("rope_size", rope_size)
    q_in = d_model if q_rank is None else expect_int("q_rank", q_rank)
    params = {
        "q": q.init(fold_in(key, 0), d_in=q_in, d_out=(H * K, H * R), dtype=dtype),
        "kv_down": kv_down.init(fold_in(key, 1), d_in=d_model, d_out=(C, R), dtype=dtype),
        "kv_norm": kv_norm.init(fold_in(key, 2), d_model=C, dtype=dtype),
        "kv": kv.init(fold_in(key, 3), d_in=C, d_out=(H * K, H * Kv), dtype=dtype),
        "out": out.init(
            fold_in(key, 4), d_in=H * Kv, d_out=d_model, scale=output_scale, dtype=dtype
        ),
    }
    if q_rank is not None:
        params["q_down"] = q_down.init(fold_in(key, 5), d_in=d_model, d_out=q_in, dtype=dtype)
        params["q_norm"] = q_norm.init(fold_in(key, 6), d_model=q_in, dtype=dtype)
    return params | attention_layer.init(key, n_sinks=H if sinks else 0, dtype=dtype)


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    rope_size: int,
    q_rank: int | None = None,
    positions: Array,
    begins: Array | None = None,
    visibility: Visibility = CAUSAL,
    rope_theta: float = 10000.0,
    rope_pairing: str = "interleaved",
    soft_cap: float | None = None,
    attention: str = "auto",
    q_down: Layer = linear,
    q_norm: Layer = rms_norm,
    q: Layer = linear,
    kv_down: Layer = linear,
    kv_norm: Layer = rms_norm,
    kv: Layer = linear,
    out: Layer = linear,
) -> tuple[Array, Residuals]:
    """Return the attended values, projected to (B, T, D).

    Args:
        params: from `init`; ``sinks`` (H,) are attention sinks, if they are there.
        x: (B, T, D).
        n_heads: H.
        rope_size: R.
        q_rank: as in `init`.
        positions: of the tokens, (T,) or (B, T).
        begins: (B, T) where the document of each token begins; it sees nothing before. Not given:
            all are of one document.
        visibility: which tokens a token may see.
        rope_theta: the base of the rotary wavelengths.
        rope_pairing: "interleaved" or "half".
        soft_cap: the bound of scores; see `attention`.
        attention: one of `self_attention.KINDS`.
        q_down: the layers, as in `init`.
        q_norm: see `init`.
        q: see `init`.
        kv_down: see `init`.
        kv_norm: see `init`.
        kv: see `init`.
        out: see `init`.

    Raises:
        ValueError: for projections whose widths do not fit H and R.
    """
    latent_of_q = [] if q_rank is None else ["q_down", "q_norm"]
    expect_params(params, [*latent_of_q, "q", "kv_down", "kv_norm", "kv", "out"], ["sinks"])
    expect_inputs({}, "", x, "B T D")
    layers = Parts(q_down, q_norm, q, kv_down, kv_norm, kv, out)
    turning: dict[str, Any] = {"positions": positions, "theta": rope_theta, "pairing": rope_pairing}
    R = expect_int("rope_size", rope_size)

    queries, q_rope, r_q = _queries(params, x, layers, n_heads, R)
    latent, k_rope, r_kv = _latent(params, x, layers, R)
    packed, r_up = kv.forward(params["kv"], latent)  # (B, T, H·K + H·Kv)
    sizes = H, K, _, Kv = _sizes(queries, R, packed.shape[-1])
    keys, values = _split_heads(packed, H, K)
    rope, r_rotary = rotary.forward({}, np.concatenate([q_rope, k_rope], axis=2), **turning)
    shared = np.broadcast_to(rope[:, :, H:], q_rope.shape)  # every head has the same
    heads = QKV(
        np.concatenate([queries, rope[:, :, :H]], axis=-1),  # (B, T, H, K + R)
        np.concatenate([keys, shared], axis=-1),
        values,
    )
    core = core_for(attention, x.shape[1])
    visibility = visibility if begins is None else visibility._replace(first=begins)
    attended, r_attention = core.forward(
        pick(params, {"sinks"}), heads, visibility=visibility, soft_cap=soft_cap
    )  # (B, T, H, Kv)
    y, r_out = out.forward(params["out"], attended.reshape(*x.shape[:2], H * Kv))
    of = Parts(*r_q, *r_kv, r_up, r_out)
    return y, Residuals(of, r_rotary, r_attention, core, layers, sizes)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"q", "kv_down", "kv_norm", "kv", "out"}, d_x)``, perhaps with the latent of q."""
    expect_residuals(residuals, Residuals)
    of, r_rotary, r_attention, core, layers, (H, K, _, Kv) = residuals
    d_out, d_attended = layers.out.vjp(of.out, g)
    B, T, _ = d_attended.shape
    d_sinks, (d_q, d_k, d_v) = core.vjp(r_attention, d_attended.reshape(B, T, H, Kv))
    d_params = {"out": d_out, **d_sinks}
    d_shared = d_k[..., K:].sum(axis=2, keepdims=True)  # all heads read it: cotangents add
    _, d_rope = rotary.vjp(r_rotary, np.concatenate([d_q[..., K:], d_shared], axis=2))

    d_packed = _join_heads(d_k[..., :K], d_v)
    d_params["kv"], d_latent = layers.kv.vjp(of.kv, d_packed)
    d_params["kv_norm"], d_latent = layers.kv_norm.vjp(of.kv_norm, d_latent)
    d_down = np.concatenate([d_latent, d_rope[:, :, H]], axis=-1)  # (B, T, C + R)
    d_params["kv_down"], d_x = layers.kv_down.vjp(of.kv_down, d_down)

    d_packed = _join_heads(d_q[..., :K], d_rope[:, :, :H])
    d_params["q"], d_branch = layers.q.vjp(of.q, d_packed)
    if of.q_down is not None:
        d_params["q_norm"], d_branch = layers.q_norm.vjp(of.q_norm, d_branch)
        d_params["q_down"], d_branch = layers.q_down.vjp(of.q_down, d_branch)
    return d_params, d_x + d_branch  # x feeds queries and latent: cotangents add


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, D) for the tangents of the parameters and of x."""
    expect_residuals(residuals, Residuals)
    of, r_rotary, r_attention, core, layers, (H, K, R, Kv) = residuals
    t_params, t_x = t
    t_branch = t_x
    if of.q_down is not None:
        t_branch = layers.q_down.jvp(of.q_down, (t_params["q_down"], t_x))
        t_branch = layers.q_norm.jvp(of.q_norm, (t_params["q_norm"], t_branch))
    t_packed = layers.q.jvp(of.q, (t_params["q"], t_branch))
    t_queries, t_q_rope = _split_heads(t_packed, H, K)

    t_down = layers.kv_down.jvp(of.kv_down, (t_params["kv_down"], t_x))  # (B, T, C + R)
    t_latent = layers.kv_norm.jvp(of.kv_norm, (t_params["kv_norm"], t_down[..., :-R]))
    t_packed = layers.kv.jvp(of.kv, (t_params["kv"], t_latent))
    t_keys, t_values = _split_heads(t_packed, H, K)

    t_rope = np.concatenate([t_q_rope, t_down[..., None, -R:]], axis=2)  # (B, T, H + 1, R)
    t_rope = rotary.jvp(r_rotary, ({}, t_rope))
    t_shared = np.broadcast_to(t_rope[:, :, H:], t_q_rope.shape)
    t_heads = QKV(
        np.concatenate([t_queries, t_rope[:, :, :H]], axis=-1),  # (B, T, H, K + R)
        np.concatenate([t_keys, t_shared], axis=-1),
        t_values,
    )
    t_attended = core.jvp(r_attention, (pick(t_params, {"sinks"}), t_heads))  # (B, T, H, Kv)
    t_attended = t_attended.reshape(*t_x.shape[:2], H * Kv)
    return layers.out.jvp(of.out, (t_params["out"], t_attended))


def init_cache(params: Tree, batch: int, length: int) -> Cache:
    """Return an empty cache for that many texts of up to ``length`` tokens."""
    return Cache(None, None, np.zeros(batch, np.int64), length)


def step(
    params: Tree,
    x: Array,
    cache: Cache,
    *,
    lengths: Array | None = None,
    begins: Array | None = None,
    n_heads: int,
    rope_size: int,
    visibility: Visibility = CAUSAL,
    rope_theta: float = 10000.0,
    rope_pairing: str = "interleaved",
    soft_cap: float | None = None,
    q_down: Layer = linear,
    q_norm: Layer = rms_norm,
    q: Layer = linear,
    kv_down: Layer = linear,
    kv_norm: Layer = rms_norm,
    kv: Layer = linear,
    out: Layer = linear,
) -> tuple[Array, Cache]:
    """Return the output for the next positions of each text, and the cache after them.

    See `self_attention.step`, also for the cache.
    """
    B, T, _ = x.shape
    layers = Parts(q_down, q_norm, q, kv_down, kv_norm, kv, out)
    latents, up, filled, S = cache
    positions = filled[:, None] + np.arange(T)  # (B, T)
    queries, q_rope, _ = _queries(params, x, layers, n_heads, rope_size)
    latent, k_rope, _ = _latent(params, x, layers, rope_size)
    turning: dict[str, Any] = {"theta": rope_theta, "pairing": rope_pairing}
    own = positions if begins is None else positions - begins
    rope, _ = rotary.forward({}, np.concatenate([q_rope, k_rope], axis=2), positions=own, **turning)
    C, R = latent.shape[-1], rope_size
    if latents is None or up is None:
        latents = np.ones((B, S, C + 1 + R), x.dtype)
        up, _ = kv.forward(params["kv"], np.eye(C + 1, C, dtype=x.dtype))
        up = np.concatenate([up[:C] - up[C], up[C:]])  # of zero, a projection gives its bias
    rows = np.arange(B)[:, None]
    latents[rows, positions, :C], latents[rows, positions, C + 1 :] = latent, rope[:, :, n_heads]

    H, K, _, Kv = _sizes(queries, R, up.shape[-1])
    to_key, to_value = _split_heads(up[None], H, K)  # (1, C + 1, H, K or Kv)
    through = np.einsum("bthk,chk->bthc", queries, to_key[0])
    at_latents = np.concatenate([through, rope[:, :, :H]], axis=-1)  # (B, T, H, C + 1 + R)
    at_latents *= math.sqrt((C + 1 + R) / (K + R))  # attention divides by √(C + 1 + R)
    stop = int(positions.max(initial=-1)) + 1
    keys = latents[:, :stop, None]  # (B, stop, 1, C + 1 + R)
    attended, _ = attention_layer.forward(
        pick(params, {"sinks"}),
        QKV(at_latents, keys, keys[..., : C + 1]),
        visibility=Visibility(True, filled, visibility.window, first=begins),
        soft_cap=soft_cap,
    )  # (B, T, H, C + 1)
    values = np.einsum("bthc,chv->bthv", attended, to_value[0])
    y, _ = out.forward(params["out"], values.reshape(B, T, H * Kv))
    return y, Cache(latents, up, filled + (T if lengths is None else lengths), S)


def attention_weights(residuals: Residuals) -> Array:
    """Return the attention weights (B, H, T, T) of a forward, for statistics."""
    return residuals.core.weights(residuals.attention)


def context_flops(
    context: int,
    *,
    d_model: int,
    n_heads: int,
    rope_size: int,
    head_size: int | None = None,
    value_size: int | None = None,
    visibility: Visibility = CAUSAL,
) -> int:
    """Return the arithmetic of scores and values for a token with so many before it."""
    H, _, K, Kv = head_sizes(d_model, n_heads, None, head_size, value_size)
    context = min(context, visibility.window or context)
    return 2 * context * H * (K + rope_size + Kv)


def _queries(
    params: Tree, x: Array, layers: Parts, H: int, R: int
) -> tuple[Array, Array, tuple[Any, Any, Any]]:
    """Return contents (B, T, H, K) and rotary parts (B, T, H, R) of queries, and the residuals."""
    r_down = r_norm = None
    if "q_down" in params:
        x, r_down = layers.q_down.forward(params["q_down"], x)
        x, r_norm = layers.q_norm.forward(params["q_norm"], x)
    packed, r_q = layers.q.forward(params["q"], x)  # (B, T, H·K + H·R)
    width = packed.shape[-1]
    if width % H or width <= H * R:
        raise ValueError(
            f"q must make n_heads·(K + rope_size) columns: got {width}, n_heads={H}, "
            f"rope_size={R}; pass the settings of init"
        )
    contents, rope = _split_heads(packed, H, width // H - R)
    return contents, rope, (r_down, r_norm, r_q)


def _latent(params: Tree, x: Array, layers: Parts, R: int) -> tuple[Array, Array, tuple[Any, Any]]:
    """Return the latent (B, T, C) and the rotary key (B, T, 1, R), and the residuals."""
    down, r_down = layers.kv_down.forward(params["kv_down"], x)  # (B, T, C + R)
    latent, r_norm = layers.kv_norm.forward(params["kv_norm"], down[..., :-R])
    return latent, down[..., None, -R:], (r_down, r_norm)


def _sizes(queries: Array, R: int, width: int) -> tuple[int, int, int, int]:
    """Return H, K, R and Kv for queries (B, T, H, K), where ``kv`` makes so many columns."""
    _, _, H, K = queries.shape
    if width % H or width <= H * K:
        raise ValueError(
            f"kv must make n_heads·(K + value_size) columns: got {width}, n_heads={H}, K={K}; "
            "pass the settings of init"
        )
    return H, K, R, width // H - K


def _split_heads(packed: Array, H: int, K: int) -> tuple[Array, Array]:
    """Return views of H heads of size K (B, T, H, K), and of H more of what is left."""
    B, T, width = packed.shape
    first, second = packed[..., : H * K], packed[..., H * K :]
    return first.reshape(B, T, H, K), second.reshape(B, T, H, width // H - K)


def _join_heads(first: Array, second: Array) -> Array:
    """Undo `_split_heads`."""
    parts = [part.reshape(*part.shape[:2], math.prod(part.shape[2:])) for part in (first, second)]
    return np.concatenate(parts, axis=-1)
