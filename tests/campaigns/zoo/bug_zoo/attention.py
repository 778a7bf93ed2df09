"""Attention, its positions, and the block around it."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.compose import bind
from functional_lm.heads import CAUSAL, QKV, Visibility
from functional_lm.layers import attention, linear, rms_norm, rotary
from functional_lm.models import (
    mlp,
    multi_latent_attention,
    parallel_block,
    self_attention,
    transformer_block,
)
from functional_lm.numerics import softmax, softmax_vjp

from .bug import Layer, draw, plant


def qkv(seed, B, T, S, H, G, K):
    return QKV(draw(seed, B, T, H, K), draw(seed + 1, B, S, G, K), draw(seed + 2, B, S, G, K))


plant(
    attention,
    {},
    qkv(213, 2, 5, 5, 3, 3, 7),
    """
    1/√K is left out of d_q
    x.q: constant factor
    - d_q = (d_scores @ k) * (1 / math.sqrt(K))
    + d_q = d_scores @ k

    np.sqrt makes d_q float64
    x.q: precision (float64)
    - d_q = (d_scores @ k) * (1 / math.sqrt(K))
    + d_q = d_scores @ k / np.sqrt(K)

    the softmax is differentiated entry by entry, without the sum over the keys
    x.k x.q: missing term
    - d_scores = softmax_vjp(probs, d_probs)
    + d_scores = probs * d_probs

    d_q and d_k are returned in the other order
    x.k x.q: swapped
    - return d_params, QKV(_ungroup(d_q, H), _ungroup(d_k, G), _ungroup(d_v, G))
    + return d_params, QKV(_ungroup(d_k, H), _ungroup(d_q, G), _ungroup(d_v, G))

    the probabilities are computed anew without the causal mask
    x.k x.q x.v: mask leak
    - q, k, v, probs, H, tanh, sink_probs, multiplier = residuals
    + q, k, v, _, H, tanh, sink_probs, multiplier = residuals
    + probs, _ = _masked_softmax(q @ k.swapaxes(-1, -2), None, None)
    """,
    visibility=CAUSAL,
)

plant(
    attention,
    {},
    qkv(207, 2, 5, 7, 6, 2, 3),
    """
    d_k of the last query head of a group overwrites the others
    x.k: slice kept
    - d_k = d_scores.swapaxes(-1, -2) @ q
    + for rows in np.split(np.arange(RT), H // G):
    +     d_k = d_scores[:, :, rows].swapaxes(-1, -2) @ q[:, :, rows]
    """,
)

plant(
    rotary,
    {},
    draw(219, 2, 5, 3, 6),
    """
    g is turned by the angle and not back
    x: jacobian not transposed
    - return {}, _turn_first(g, rotation.conj(), pairing)
    + return {}, _turn_first(g, rotation, pairing)

    g is viewed as complex numbers, which needs contiguous rows
    layout
    - return {}, _turn_first(g, rotation.conj(), pairing)
    + return {}, (g.view(rotation.dtype) * rotation.conj()).view(g.dtype)
    """,
    positions=np.arange(5),
)

plant(
    rotary,
    {},
    draw(232, 2, 5, 3, 6),
    """
    the entries that pass get no gradient
    x: written in part
    - return {}, _turn_first(g, rotation.conj(), pairing)
    + d_x = _turn_first(g, rotation.conj(), pairing)
    + d_x[..., 2 * rotation.shape[-1] :] = 0.0
    + return {}, d_x
    """,
    positions=np.arange(5),
    size=2,
)

plant(
    attention,
    {"sinks": draw(230, 6)},
    qkv(231, 2, 5, 7, 6, 2, 3),
    """
    d_sinks lacks its minus
    params.sinks: sign
    - d_params["sinks"] = -(sink_probs * mean).sum(axis=(0, 2, 3))
    + d_params["sinks"] = (sink_probs * mean).sum(axis=(0, 2, 3))

    the slope of the soft cap is left out
    x.k x.q: missing factor
    - d_scores *= 1 - tanh * tanh
    + pass

    the weights that were dropped get a gradient
    params.sinks x.k x.q: missing term
    - d_probs *= multiplier
    + pass
    """,
    soft_cap=2.0,
    dropout=0.3,
    key=(3,),
)

PROJECTIONS = {
    "qkv": {"weight": draw(222, 12, 20, scale=0.5)},
    "out": {"weight": draw(223, 12, 12, scale=0.5)},
}
HEADS = {"n_heads": 6, "n_kv_heads": 2, "visibility": Visibility(causal=True, window=5)}

plant(
    self_attention,
    PROJECTIONS,
    draw(224, 2, 5, 12),
    """
    g is reshaped to heads before time
    params.qkv.weight x: misplaced
    - d_sinks, d_own = core.vjp(r_core, d_attended.reshape(B, T, H, width // H))
    + by_head = d_attended.reshape(B, H, T, width // H)
    + d_sinks, d_own = core.vjp(r_core, by_head.swapaxes(1, 2))
    """,
    **HEADS,
    positions=np.arange(5),
)

plant(
    self_attention,
    {
        **PROJECTIONS,
        "q_norm": {"scale": draw(233, 2)},
        "k_norm": {"scale": draw(234, 2)},
        "gate": {"weight": draw(235, 12, 12)},
    },
    draw(236, 2, 5, 12),
    """
    x does not get the gradient of the gate
    x: missing term
    - return d_params, d_x if d_gate_x is None else d_x + d_gate_x
    + return d_params, d_x

    the norms of queries and keys are exchanged in the backward
    params.k_norm.scale params.q_norm.scale: swapped
    - d_params |= {} if r_k.layer is None else {"k_norm": d_k_norm}
    - d_params |= {} if r_q.layer is None else {"q_norm": d_q_norm}
    + d_params |= {"k_norm": d_q_norm, "q_norm": d_k_norm}
    """,
    **HEADS,
    positions=np.arange(5),
    q_norm=rms_norm,
    k_norm=rms_norm,
    gate=linear,
)

plant(
    transformer_block,
    {
        "norm1": {"scale": draw(225, 12)},
        "mixer": PROJECTIONS,
        "norm2": {"scale": draw(226, 12)},
        "mlp": {
            "up": {"weight": np.concatenate(draw(228, 2, 12, 7, scale=0.5), axis=1)},
            "down": {"weight": draw(229, 7, 12, scale=0.5)},
        },
    },
    draw(227, 2, 5, 12),
    """
    x gets the first branch and not the skip
    x: missing term
    - d_norm1, d_branch = block.norm1.vjp(residuals.norm1, d_h)
    - g = g + d_branch
    + d_norm1, g = block.norm1.vjp(residuals.norm1, d_h)
    """,
    block=transformer_block.Block(rms_norm, bind(self_attention, **HEADS), rms_norm, mlp),
    positions=np.arange(5),
)


plant(
    parallel_block,
    {
        "norm": {"scale": draw(240, 12)},
        "mixer": PROJECTIONS,
        "mlp": {
            "up": {"weight": np.concatenate(draw(241, 2, 12, 7, scale=0.5), axis=1)},
            "down": {"weight": draw(242, 7, 12, scale=0.5)},
        },
    },
    draw(243, 2, 5, 12),
    """
    the norm gets the cotangent of one branch alone
    params.norm.scale x: missing term
    - d_h = d_h + d_branch
    + d_h = d_branch

    the skip path is left out
    x: missing term
    - g = g + d_branch
    + g = d_branch
    """,
    block=parallel_block.Block(rms_norm, bind(self_attention, **HEADS), mlp),
    positions=np.arange(5),
)

plant(
    multi_latent_attention,
    {
        "q": {"weight": draw(244, 11, 18, scale=0.5)},
        "kv_down": {"weight": draw(245, 11, 7, scale=0.5)},
        "kv_norm": {"scale": draw(246, 5)},
        "kv": {"weight": draw(247, 5, 18, scale=0.5)},
        "out": {"weight": draw(248, 6, 11, scale=0.5)},
    },
    draw(249, 2, 5, 11),
    """
    the shared key gets the cotangent of the first head alone
    params.kv_down.weight x: slice kept
    - d_shared = d_k[..., K:].sum(axis=2, keepdims=True)
    + d_shared = d_k[:, :, :1, K:]

    x gets nothing through the queries
    x: missing term
    - return d_params, d_x + d_branch
    + return d_params, d_x
    """,
    n_heads=3,
    rope_size=2,
    positions=np.arange(5),
)


class alibi(Layer):
    """Causal attention weights: softmax of scores less slope·distance (Press et al. 2022)."""

    SHARES_MEMORY = "y is the residual"

    def forward(params, x):
        slope = params["slope"]  # (H,)
        T, _, S = x.shape[1:]  # (B, T, H, S)
        distance = (np.arange(T)[:, None, None] - np.arange(S)).astype(x.dtype)  # (T, 1, S)
        scores = x - slope[:, None] * distance
        probs = softmax(np.where(distance >= 0, scores, -math.inf))
        return probs, (probs, distance)

    def vjp(residuals, g):
        probs, distance = residuals
        d_scores = probs * (g - (g * probs).sum(axis=-1, keepdims=True))
        return {"slope": -(d_scores * distance).sum(axis=(0, 1, 3))}, d_scores

    def reference(params, x):
        distance = np.arange(x.shape[1])[:, None, None] - np.arange(x.shape[3])
        scores = x - params["slope"][:, None] * distance
        return jax.nn.softmax(jnp.where(distance >= 0, scores, -jnp.inf), axis=-1)

    inputs = ({"slope": draw(220, 3)}, draw(221, 2, 7, 3, 7), {})
    bugs = """
    the minus before the slope is forgotten
    params.slope: sign
    - return {"slope": -(d_scores * distance).sum(axis=(0, 1, 3))}, d_scores
    + return {"slope": (d_scores * distance).sum(axis=(0, 1, 3))}, d_scores
    """


def unit(x):
    """Return the rows over their norms, and the norms."""
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / norm, norm


def unit_vjp(direction, norm, g):
    """Return the cotangent of the rows, given what `unit` made of them."""
    return (g - direction * (g * direction).sum(axis=-1, keepdims=True)) / norm


class cosine_attention(Layer):
    """Attention whose scores are cosines, times a number for each head (Henry et al. 2020)."""

    def forward(params, x):
        scale = params["scale"][:, None, None]  # (H, 1, 1)
        (q, q_norm), (k, k_norm) = unit(x.q), unit(x.k)
        cosines = np.einsum("bthk,bshk->bhts", q, k)
        probs = softmax(scale * cosines)
        y = np.einsum("bhts,bshk->bthk", probs, x.v)
        return y, (q, q_norm, k, k_norm, x.v, cosines, probs, scale)

    def vjp(residuals, g):
        q, q_norm, k, k_norm, v, cosines, probs, scale = residuals
        d_v = np.einsum("bhts,bthk->bshk", probs, g)
        d_scores = softmax_vjp(probs, np.einsum("bthk,bshk->bhts", g, v))
        d_scale = (d_scores * cosines).sum(axis=(0, 2, 3))
        d_cosines = d_scores * scale
        d_q = unit_vjp(q, q_norm, np.einsum("bhts,bshk->bthk", d_cosines, k))
        d_k = unit_vjp(k, k_norm, np.einsum("bhts,bthk->bshk", d_cosines, q))
        return {"scale": d_scale}, QKV(d_q, d_k, d_v)

    def reference(params, x):
        q = x.q / jnp.linalg.norm(x.q, axis=-1, keepdims=True)
        k = x.k / jnp.linalg.norm(x.k, axis=-1, keepdims=True)
        scores = jnp.einsum("bthk,bshk,h->bhts", q, k, params["scale"])
        return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores, axis=-1), x.v)

    inputs = (
        {"scale": draw(1202, 3, scale=2.0)},
        QKV(draw(1203, 2, 5, 3, 7), draw(1204, 2, 11, 3, 7), draw(1205, 2, 11, 3, 7)),
        {},
    )
    bugs = """
    the scale's gradient meets the scores, which have the scale in them
    params.scale: extra factor (scale)
    - d_scale = (d_scores * cosines).sum(axis=(0, 2, 3))
    + d_scale = (d_scores * (scale * cosines)).sum(axis=(0, 2, 3))

    the scale is left out on the way to the keys
    x.k: missing factor (scale)
    - d_k = unit_vjp(k, k_norm, np.einsum("bhts,bthk->bshk", d_cosines, q))
    + d_k = unit_vjp(k, k_norm, np.einsum("bhts,bthk->bshk", d_scores, q))

    the probabilities are kept in float32 whatever comes in
    params.scale x.k x.q x.v: precision (float32)
    - return y, (q, q_norm, k, k_norm, x.v, cosines, probs, scale)
    + return y, (q, q_norm, k, k_norm, x.v, cosines, probs.astype(np.float32), scale)
    - q, q_norm, k, k_norm, v, cosines, probs, scale = residuals
    + q, q_norm, k, k_norm, v, cosines, probs, scale = residuals
    + probs = probs.astype(g.dtype)
    """


class linear_attention(Layer):
    """yₜ = Σₛ (qₜ·kₛ)·vₛ over s ≤ t."""

    def forward(params, x):
        q, k, v = x  # (B, T, K), (B, T, K), (B, T, V)
        scores = np.tril(q @ k.swapaxes(1, 2))
        return scores @ v, (q, k, v, scores)

    def vjp(residuals, g):
        q, k, v, scores = residuals
        d_scores = np.tril(g @ v.swapaxes(1, 2))
        return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, scores.swapaxes(1, 2) @ g)

    def reference(params, x):
        memory = jnp.cumsum(x.k[:, :, :, None] * x.v[:, :, None, :], axis=1)
        return jnp.einsum("btk,btkv->btv", x.q, memory)

    inputs = ({}, QKV(draw(1206, 2, 7, 3), draw(1207, 2, 7, 3), draw(1208, 2, 7, 5)), {})
    bugs = """
    later keys get a gradient from earlier queries
    x.k x.q: mask leak
    - d_scores = np.tril(g @ v.swapaxes(1, 2))
    + d_scores = g @ v.swapaxes(1, 2)

    the values look back where they should look ahead
    x.v: jacobian not transposed
    - return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, scores.swapaxes(1, 2) @ g)
    + return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, scores @ g)
    """


class relative_bias(Layer):
    """The softmax of scores plus a number for each head and distance (Raffel et al. 2019)."""

    SHARES_MEMORY = "y is the residual"

    def forward(params, x, *, reach):
        T, _, S = x.shape[1:]  # (B, T, H, S)
        distance = np.arange(T)[:, None] - np.arange(S)
        bucket = np.clip(distance, -reach, reach) + reach  # (T, S)
        bias = params["table"][:, bucket]  # (H, T, S)
        probs = softmax(x + bias.swapaxes(0, 1))
        return probs, (probs, bucket, params["table"])

    def vjp(residuals, g):
        probs, bucket, table = residuals
        d_scores = softmax_vjp(probs, g)
        d_bias = d_scores.sum(axis=0).swapaxes(0, 1)  # (H, T, S)
        d_table = np.zeros_like(table)
        np.add.at(d_table, (slice(None), bucket), d_bias)
        return {"table": d_table}, d_scores

    def reference(params, x, *, reach):
        distance = np.arange(x.shape[1])[:, None] - np.arange(x.shape[3])
        bucket = np.clip(distance, -reach, reach) + reach
        one_hot = jax.nn.one_hot(bucket, 2 * reach + 1, dtype=x.dtype)
        return jax.nn.softmax(x + jnp.einsum("hn,tsn->ths", params["table"], one_hot), axis=-1)

    inputs = ({"table": draw(1209, 3, 5)}, draw(1210, 2, 5, 3, 7), {"reach": 2})
    bugs = """
    += with the table of distances counts each distance once
    params.table: scatter
    - np.add.at(d_table, (slice(None), bucket), d_bias)
    + d_table[:, bucket] += d_bias

    key minus query where the forward has query minus key
    params.table: misplaced
    - np.add.at(d_table, (slice(None), bucket), d_bias)
    + np.add.at(d_table, (slice(None), table.shape[1] - 1 - bucket), d_bias)
    """
