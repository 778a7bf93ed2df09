"""Self-attention: project to queries, keys and values, attend, project back.

Forward: ``qkv`` → queries and keys: norms, turned by their positions → behind the ``prefix`` →
attend → times the sigmoid of ``gate`` → ``out``. Norms, prefix and gate are there if they are
given. The columns of qkv are H query heads and G key heads of size K, and G value heads of size Kv.
``vjp`` is the forward read upwards.

A prefix of P keys and values stands in the cache before the text. All queries see it, whatever
their window or mask. Its keys are learned as they are, without a norm or rotation. The positions of
the text begin at P, both for rotations and for ALiBi, where key i of the prefix stands at i. Sinks,
the soft cap and dropout treat its keys like any others.

Norms of queries and keys: Dehghani et al. 2023, section 2, as in Qwen3. The gate: Qiu et al. 2025,
section 2.2, "G1".

Where rotary positions and causal attention to the whole text are all there is, they run in one
layer, `rotary_attention`. Anything else runs `rotary`, then `attention` or, for long texts,
`flash_attention`.

Shapes: x and y (B, T, D); ``qkv`` makes (B, T, (H + G)·K + G·Kv), ``gate`` (B, T, H·Kv), which
``out`` takes.
"""

from typing import Any, NamedTuple

import numpy as np

from ...compose import keyed, pick
from ...contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_choice,
    expect_inputs,
    expect_params,
    expect_residuals,
)
from ...heads import CAUSAL, QKV, Visibility, behind_prefix, head_sizes, split_sizes
from ...layers import attention as attention_layer
from ...layers import flash_attention, gated, linear, rotary, rotary_attention, sigmoid
from ...prng import fold_in

__all__ = [
    "KINDS",
    "Cache",
    "Residuals",
    "Unpacked",
    "attention_weights",
    "context_flops",
    "core_for",
    "forward",
    "init",
    "init_cache",
    "jvp",
    "prefix_sizes",
    "step",
    "vjp",
]

KINDS = ("auto", "materialised", "tiled")
"""How attention is computed: "materialised" keeps the weights of all queries and keys for the
backward pass; "tiled" computes them again there, so that memory does not grow with the square of
the length, in about half as much time again; "auto" tiles above `LONG` tokens."""

LONG = 1024


class Prepared(NamedTuple):
    """What the backward of a norm and a turn of heads needs."""

    norm: Any
    rotary: rotary.Residuals | None
    layer: Layer | None  # the norm, if there is one


class Unpacked(NamedTuple):
    """What the backward of attention on unpacked heads needs."""

    q: Prepared
    k: Prepared
    prefix: Any
    attention: attention_layer.Residuals | flash_attention.Residuals
    core: Any  # `attention` or `flash_attention`
    heads: tuple[int, int, int, int]  # H, G, K, Kv


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the projections and the prefix."""

    qkv: Any
    attention: rotary_attention.Residuals | Unpacked
    gate: Any
    gated: Any
    out: Any
    layers: tuple[Layer, Layer | None, Layer | None, Layer]


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
    sinks: bool = False,
    qkv: Layer = linear,
    q_norm: Layer | None = None,
    k_norm: Layer | None = None,
    prefix: Layer | None = None,
    gate: Layer | None = None,
    out: Layer = linear,
    dtype: Any = np.float32,
) -> Tree:
    """Draw the projections, queries, keys and values each with their own variance.

    Args:
        key: randomness.
        d_model: D.
        n_heads: H.
        n_kv_heads: G, a divisor of H; H if not given.
        head_size: K; D/H if not given.
        value_size: Kv; K if not given.
        output_scale: multiplies the output projection.
        sinks: whether each head has an attention sink; see `attention`.
        qkv: the layer that makes queries, keys and values.
        q_norm: the norm of each query head; none if not given.
        k_norm: the norm of each key head; none if not given.
        prefix: learned keys and values before the text, with `prefix_sizes`; none if not given.
        gate: the layer that makes the gate of the attended values; none if not given.
        out: the layer that projects back.
        dtype: float32 or float64.

    Raises:
        ValueError: for numbers of heads that do not fit.
    """
    H, G, K, Kv = head_sizes(d_model, n_heads, n_kv_heads, head_size, value_size)
    params = {
        "qkv": qkv.init(fold_in(key, 0), d_in=d_model, d_out=(H * K, G * K, G * Kv), dtype=dtype),
        "out": out.init(
            fold_in(key, 1), d_in=H * Kv, d_out=d_model, scale=output_scale, dtype=dtype
        ),
    }
    if q_norm is not None:
        params["q_norm"] = q_norm.init(fold_in(key, 2), d_model=K, dtype=dtype)
    if k_norm is not None:
        params["k_norm"] = k_norm.init(fold_in(key, 3), d_model=K, dtype=dtype)
    if gate is not None:
        params["gate"] = gate.init(fold_in(key, 4), d_in=d_model, d_out=H * Kv, dtype=dtype)
    if prefix is not None:
        params["prefix"] = prefix.init(fold_in(key, 5), dtype=dtype)
    return params | attention_layer.init(key, n_sinks=H if sinks else 0, dtype=dtype)


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    value_size: int | None = None,
    positions: Array,
    begins: Array | None = None,
    visibility: Visibility = CAUSAL,
    rope_theta: float | None = 10000.0,
    rope_pairing: str = "interleaved",
    rope_size: int | None = None,
    soft_cap: float | None = None,
    alibi: bool = False,
    attention: str = "auto",
    attention_dropout: float = 0.0,
    key: Key | None = None,
    qkv: Layer = linear,
    q_norm: Layer | None = None,
    k_norm: Layer | None = None,
    prefix: Layer | None = None,
    gate: Layer | None = None,
    out: Layer = linear,
) -> tuple[Array, Residuals]:
    """Return the attended values, projected to (B, T, D).

    Args:
        params: of the layers; ``sinks`` (H,) are attention sinks, if they are there.
        x: (B, T, D).
        n_heads: H.
        n_kv_heads: G; H if not given.
        value_size: Kv; K if not given.
        positions: of the tokens, (T,) or (B, T).
        begins: (B, T) where the document of each token begins; it sees nothing before. Not given:
            all are of one document.
        visibility: which tokens a token may see.
        rope_theta: the base of the rotary wavelengths; None: queries and keys are not turned.
        rope_pairing: "interleaved" or "half".
        rope_size: how many entries of a head turn; all if not given.
        soft_cap: the bound of scores; see `attention`.
        alibi: whether scores fall with distance; see `attention`.
        attention: one of `KINDS`.
        attention_dropout: the share of attention weights that is dropped.
        key: randomness of dropout. No key: no dropout.
        qkv: the layer that makes queries, keys and values.
        q_norm: the norm of each query head.
        k_norm: the norm of each key head.
        prefix: what puts learned keys and values before those of the text.
        gate: the layer that makes the gate of the attended values.
        out: the layer that projects back.
    """
    given = {"q_norm": q_norm, "k_norm": k_norm, "prefix": prefix, "gate": gate}
    inner = [name for name, layer in given.items() if layer is not None]
    expect_params(params, ["qkv", "out", *inner], ["sinks"])
    expect_inputs({}, "", x, "B T D")
    core = core_for(attention, x.shape[1])
    if alibi and prefix is not None and begins is not None:
        raise ValueError(
            "ALiBi measures distances to a prefix from the first document alone: got several; "
            "choose rotary positions, or leave isolate_documents out"
        )
    visibility = visibility if begins is None else visibility._replace(first=begins)
    rate = 0.0 if key is None else attention_dropout

    packed, r_qkv = qkv.forward(params["qkv"], x, **keyed(qkv, fold_in(key, 0)))
    H, G, K, Kv = heads = split_sizes(packed.shape[-1], n_heads, n_kv_heads, value_size)
    turning: dict[str, Any] = {"positions": positions, "theta": rope_theta, "pairing": rope_pairing}
    turns_all = rope_theta is not None and rope_size in (None, K)
    r_attention: rotary_attention.Residuals | Unpacked
    unusual = params.keys() & {"q_norm", "k_norm", "prefix", "sinks"} or alibi or rate
    unusual = unusual or soft_cap is not None
    unusual = unusual or core is flash_attention or Kv != K
    if _is_causal(visibility) and turns_all and not unusual:
        attended, r_attention = rotary_attention.forward(
            {}, packed, n_heads=H, n_kv_heads=G, **turning
        )  # (B, T, H·K)
    else:
        P, T = _prefix_size(params), x.shape[1]
        turning |= {"size": rope_size, "positions": positions + P}
        q, k, v = _unpacked(packed, heads)
        q, r_q = _prepare(params.get("q_norm"), q, q_norm, turning)
        k, r_k = _prepare(params.get("k_norm"), k, k_norm, turning)
        own, r_prefix = QKV(q, k, v), None
        if prefix is not None:
            own, r_prefix = prefix.forward(params["prefix"], own)  # P + T keys
            visibility = behind_prefix(visibility, P, T, T)
        y, r_core = core.forward(
            pick(params, {"sinks"}),
            own,
            visibility=visibility,
            soft_cap=soft_cap,
            alibi=alibi,
            dropout=rate,
            key=fold_in(key, 1),
        )  # (B, T, H, Kv)
        attended = y.reshape(*x.shape[:2], H * Kv)
        r_attention = Unpacked(r_q, r_k, r_prefix, r_core, core, heads)
    r_gate = r_gated = None
    if gate is not None:
        g, r_gate = gate.forward(params["gate"], x, **keyed(gate, fold_in(key, 2)))
        attended, r_gated = gated.forward(
            {}, np.concatenate([g, attended], axis=-1), activation=sigmoid
        )
    y, r_out = out.forward(params["out"], attended, **keyed(out, fold_in(key, 3)))
    return y, Residuals(r_qkv, r_attention, r_gate, r_gated, r_out, (qkv, prefix, gate, out))


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"qkv", "out", ...}, d_x)`` for the cotangent g (B, T, D)."""
    expect_residuals(residuals, Residuals)
    r_qkv, r_attention, r_gate, r_gated, r_out, (qkv, prefix, gate, out) = residuals
    d_params, d_gate_x = {}, None
    d_params["out"], d_attended = out.vjp(r_out, g)
    if gate is not None:
        _, d_both = gated.vjp(r_gated, d_attended)
        d_gate, d_attended = np.split(d_both, 2, axis=-1)
        d_params["gate"], d_gate_x = gate.vjp(r_gate, d_gate)
    if isinstance(r_attention, rotary_attention.Residuals):
        _, d_packed = rotary_attention.vjp(r_attention, d_attended)
    else:
        r_q, r_k, r_prefix, r_core, core, (H, *_) = r_attention
        B, T, width = d_attended.shape
        d_sinks, d_own = core.vjp(r_core, d_attended.reshape(B, T, H, width // H))
        if prefix is not None:
            d_params["prefix"], d_own = prefix.vjp(r_prefix, d_own)
        d_q, d_k, d_v = d_own
        d_k_norm, d_k = _prepare_vjp(r_k, d_k)
        d_q_norm, d_q = _prepare_vjp(r_q, d_q)
        d_packed = _packed((d_q, d_k, d_v))
        d_params |= d_sinks
        d_params |= {} if r_k.layer is None else {"k_norm": d_k_norm}
        d_params |= {} if r_q.layer is None else {"q_norm": d_q_norm}
    d_params["qkv"], d_x = qkv.vjp(r_qkv, d_packed)
    return d_params, d_x if d_gate_x is None else d_x + d_gate_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, D) for the tangents ``({"qkv", "out", ...}, t_x)``."""
    expect_residuals(residuals, Residuals)
    r_qkv, r_attention, r_gate, r_gated, r_out, (qkv, prefix, gate, out) = residuals
    t_params, t_x = t
    t_packed = qkv.jvp(r_qkv, (t_params["qkv"], t_x))
    if isinstance(r_attention, rotary_attention.Residuals):
        t_attended = rotary_attention.jvp(r_attention, ({}, t_packed))
    else:
        r_q, r_k, r_prefix, r_core, core, (H, _, _, Kv) = r_attention
        t_q, t_k, t_v = _unpacked(t_packed, r_attention.heads)
        t_q = _prepare_jvp(r_q, t_params.get("q_norm"), t_q)
        t_k = _prepare_jvp(r_k, t_params.get("k_norm"), t_k)
        t_own = QKV(t_q, t_k, t_v)
        if prefix is not None:
            t_own = prefix.jvp(r_prefix, (t_params["prefix"], t_own))
        t_y = core.jvp(r_core, (pick(t_params, {"sinks"}), t_own))  # (B, T, H, Kv)
        t_attended = t_y.reshape(*t_x.shape[:2], H * Kv)
    if gate is not None:
        t_gate = gate.jvp(r_gate, (t_params["gate"], t_x))
        t_attended = gated.jvp(r_gated, ({}, np.concatenate([t_gate, t_attended], axis=-1)))
    return out.jvp(r_out, (t_params["out"], t_attended))


def _prepare(
    params: Tree, heads: Array, norm: Layer | None, turning: dict[str, Any]
) -> tuple[Array, Prepared]:
    """Return queries or keys (B, T, heads, K), normed if there is a norm, turned if any are."""
    r_norm = r_rotary = None
    if norm is not None:
        heads, r_norm = norm.forward(params, heads)
    if turning["theta"] is not None:
        heads, r_rotary = rotary.forward({}, heads, **turning)
    return heads, Prepared(r_norm, r_rotary, norm)


def _prepare_vjp(residuals: Prepared, g: Array) -> tuple[Tree, Array]:
    r_norm, r_rotary, norm = residuals
    d_norm = None
    if r_rotary is not None:
        _, g = rotary.vjp(r_rotary, g)
    if norm is not None:
        d_norm, g = norm.vjp(r_norm, g)
    return d_norm, g


def _prepare_jvp(residuals: Prepared, t_norm: Tree, t_heads: Array) -> Array:
    r_norm, r_rotary, norm = residuals
    if norm is not None:
        t_heads = norm.jvp(r_norm, (t_norm, t_heads))
    if r_rotary is not None:
        t_heads = rotary.jvp(r_rotary, ({}, t_heads))
    return t_heads


def init_cache(params: Tree, batch: int, length: int) -> Cache:
    """Return a cache for that many texts of up to ``length`` tokens, with the prefix in it."""
    P = _prefix_size(params)
    keys = values = None
    if P:
        own = params["prefix"]
        keys, values = (_room(batch, P + length, own[name]) for name in ("keys", "values"))
        keys[:, :P], values[:, :P] = own["keys"], own["values"]
    return Cache(keys, values, np.full(batch, P), P + length)


def step(
    params: Tree,
    x: Array,
    cache: Cache,
    *,
    lengths: Array | None = None,
    begins: Array | None = None,
    n_heads: int,
    n_kv_heads: int | None = None,
    value_size: int | None = None,
    visibility: Visibility = CAUSAL,
    rope_theta: float | None = 10000.0,
    rope_pairing: str = "interleaved",
    rope_size: int | None = None,
    soft_cap: float | None = None,
    alibi: bool = False,
    qkv: Layer = linear,
    q_norm: Layer | None = None,
    k_norm: Layer | None = None,
    gate: Layer | None = None,
    out: Layer = linear,
) -> tuple[Array, Cache]:
    """Return the output for the next positions of each text, and the cache after them.

    Args:
        params: of the layers.
        x: (B, T, D), of the T positions after those in the cache; T is one but for prompts.
        cache: from `init_cache` or an earlier step. It shares memory with the one returned, which
            is used up once another step starts from the first.
        lengths: (B,) how many of the T positions each text really has; the rest is padding.
            Default: all.
        begins: (B, T) where the document of each position begins, among those in the cache.
        n_heads: H, and the other settings as in `forward`; what a token sees is causal, and of
            the visibility only the window counts. Keys before every window are not read, unless
            there is a prefix.
    """
    B, T, _ = x.shape
    packed, _ = qkv.forward(params["qkv"], x)  # (B, T, (H+G)·K + G·Kv)
    H, _, _, Kv = heads = split_sizes(packed.shape[-1], n_heads, n_kv_heads, value_size)
    q, k, v = _unpacked(packed, heads)
    keys, values, filled, S = cache
    positions = filled[:, None] + np.arange(T)  # (B, T)
    turning: dict[str, Any] = {"theta": rope_theta, "pairing": rope_pairing, "size": rope_size}
    turning["positions"] = positions if begins is None else positions - begins
    q, _ = _prepare(params.get("q_norm"), q, q_norm, turning)
    k, _ = _prepare(params.get("k_norm"), k, k_norm, turning)
    if keys is None or values is None:
        keys, values = (_room(B, S, new) for new in (k, v))
    rows = np.arange(B)[:, None]
    keys[rows, positions], values[rows, positions] = k, v
    stop = int(positions.max(initial=-1)) + 1
    P, window, start = _prefix_size(params), visibility.window, 0
    if window is not None and not P:
        start = max(int(filled.min(initial=stop)) - window + 1, 0)  # where the first window begins
    first = None if begins is None else begins - start
    visibility = Visibility(True, filled - start - P, window, first=first)
    if P:
        visibility = behind_prefix(visibility, P, T, stop - P)
    attended, _ = attention_layer.forward(
        pick(params, {"sinks"}),
        QKV(q, keys[:, start:stop], values[:, start:stop]),
        visibility=visibility,
        soft_cap=soft_cap,
        alibi=alibi,
    )  # (B, T, H, Kv)
    attended = attended.reshape(B, T, H * Kv)
    if gate is not None:
        g, _ = gate.forward(params["gate"], x)
        attended, _ = gated.forward({}, np.concatenate([g, attended], axis=-1), activation=sigmoid)
    y, _ = out.forward(params["out"], attended)
    return y, Cache(keys, values, filled + (T if lengths is None else lengths), S)


def attention_weights(residuals: Residuals) -> Array:
    """Return the attention weights (B, H, T, T) of a forward, for statistics."""
    if isinstance(residuals.attention, rotary_attention.Residuals):
        return rotary_attention.weights(residuals.attention)
    return residuals.attention.core.weights(residuals.attention.attention)


def context_flops(
    context: int,
    *,
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    head_size: int | None = None,
    value_size: int | None = None,
    visibility: Visibility = CAUSAL,
) -> int:
    """Return the arithmetic of scores and values for a token with so many before it."""
    H, _, K, Kv = head_sizes(d_model, n_heads, n_kv_heads, head_size, value_size)
    if visibility.window is not None:
        context = min(context, visibility.window)
    return 2 * context * H * (K + Kv)


def prefix_sizes(
    *,
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None = None,
    head_size: int | None = None,
    value_size: int | None = None,
) -> dict[str, int]:
    """Return the sizes of keys and values, for the ``init`` of a prefix."""
    _, G, K, Kv = head_sizes(d_model, n_heads, n_kv_heads, head_size, value_size)
    return {"n_kv_heads": G, "key_size": K, "value_size": Kv}


def core_for(kind: str, length: int) -> Any:
    """Return the layer that computes attention of so many tokens; see `KINDS`."""
    expect_choice("attention", kind, KINDS)
    tiled = kind == "tiled" or (kind == "auto" and length > LONG)
    return flash_attention if tiled else attention_layer


def _is_causal(visibility: Visibility) -> bool:
    """Tell whether a token sees all up to itself, and nothing else."""
    causal, offset, *limits = visibility
    return causal and not np.any(offset) and all(limit is None for limit in limits)


def _prefix_size(params: Tree) -> int:
    return len(params["prefix"]["keys"]) if "prefix" in params else 0


def _room(B: int, S: int, like: Array) -> Array:
    """Return zeros (B, S, G, K) for keys or values (..., G, K).

    They lie in the order (B, G, S, K), in which attention multiplies without a copy.
    """
    G, K = like.shape[-2:]
    return np.zeros((B, G, S, K), like.dtype).swapaxes(1, 2)


def _unpacked(packed: Array, heads: tuple[int, int, int, int]) -> tuple[Array, Array, Array]:
    """Return views: queries (B, T, H, K), keys (B, T, G, K) and values (B, T, G, Kv)."""
    H, G, K, Kv = heads
    q, k, v = np.split(packed, [H * K, (H + G) * K], axis=-1)
    return tuple(  # type: ignore[return-value]
        part.reshape(*packed.shape[:2], n, size)
        for part, n, size in ((q, H, K), (k, G, K), (v, G, Kv))
    )


def _packed(heads: tuple[Array, ...]) -> Array:
    """Undo `_unpacked`."""
    B, T = heads[0].shape[:2]
    rows = [part.reshape(B, T, part.shape[2] * part.shape[3]) for part in heads]
    return np.concatenate(rows, axis=-1)
