"""Attention, its positions and the blocks around it."""

import math

import numpy as np
from functional_lm.reference.layers import attention as attention_twin
from functional_lm.reference.layers import rotary as rotary_twin
from functional_lm.reference.models import self_attention as self_attention_twin
from functional_lm.reference.models import transformer_block as transformer_block_twin

from functional_lm import pytree
from functional_lm.layers import attention, linear, rms_norm, rotary, rotary_attention, swiglu
from functional_lm.layers.attention import QKV
from functional_lm.models import self_attention, transformer_block
from functional_lm.numerics import softmax, softmax_vjp

from ..bug import Bug, draw, plant
from ..research_sequences import alibi

BUGS: list[Bug] = []


def qkv(seed, B, T, S, H, G, K):
    return QKV(draw(seed, B, T, H, K), draw(seed + 1, B, S, G, K), draw(seed + 2, B, S, G, K))


def ungroup(*heads):
    """Put the gradients back to (B, T, heads, K), each from (B, G, R·T, K)."""
    return QKV(*(attention._ungroup(grouped, n) for grouped, n in heads))


@plant(
    BUGS,
    "attention: 1/√K is left out of d_q",
    attention,
    {},
    qkv(201, 2, 5, 7, 3, 3, 5),
    reference=attention_twin,
    leaves=("x.q",),
    cause="constant factor",
)
def query_not_scaled(residuals, g):
    q, k, v, probs, H = residuals
    G = k.shape[1]
    g = attention._group(g, G)
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = softmax_vjp(probs, g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k
    d_k = d_scores.swapaxes(-1, -2) @ q
    return {}, ungroup((d_q, H), (d_k, G), (d_v, G))


@plant(
    BUGS,
    "attention: the softmax is differentiated entry by entry, without the sum over the keys",
    attention,
    {},
    qkv(204, 2, 5, 7, 6, 2, 3),
    reference=attention_twin,
    leaves=("x.k", "x.q"),
    cause="missing term",
)
def no_sum_over_the_keys(residuals, g):
    q, k, v, probs, H = residuals
    G, K = k.shape[1], k.shape[3]
    g = attention._group(g, G)
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = probs * (g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k / math.sqrt(K)
    d_k = d_scores.swapaxes(-1, -2) @ q
    return {}, ungroup((d_q, H), (d_k, G), (d_v, G))


@plant(
    BUGS,
    "attention: d_k of the last query head of a group overwrites the others",
    attention,
    {},
    qkv(207, 2, 5, 7, 6, 2, 3),
    reference=attention_twin,
    leaves=("x.k",),
    cause="slice kept",
)
def last_head_of_a_group(residuals, g):
    q, k, v, probs, H = residuals
    G, K = k.shape[1], k.shape[3]
    T = g.shape[1]
    g = attention._group(g, G)
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = softmax_vjp(probs, g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k / math.sqrt(K)
    for head in range(H // G):
        rows = slice(head * T, (head + 1) * T)
        d_k = d_scores[:, :, rows].swapaxes(-1, -2) @ q[:, :, rows]
    return {}, ungroup((d_q, H), (d_k, G), (d_v, G))


@plant(
    BUGS,
    "attention: the probabilities are computed anew without the causal mask",
    attention,
    {},
    qkv(210, 2, 7, 7, 3, 3, 5),
    causal=True,
    reference=attention_twin,
    leaves=("x.k", "x.q", "x.v"),
    cause="mask leak",
)
def computed_anew_without_the_mask(residuals, g):
    q, k, v, _, H = residuals
    G, K = k.shape[1], k.shape[3]
    g = attention._group(g, G)
    probs = softmax(q @ k.swapaxes(-1, -2))
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = softmax_vjp(probs, g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k / math.sqrt(K)
    d_k = d_scores.swapaxes(-1, -2) @ q
    return {}, ungroup((d_q, H), (d_k, G), (d_v, G))


@plant(
    BUGS,
    "attention: d_q and d_k are returned in the other order",
    attention,
    {},
    qkv(213, 2, 5, 5, 3, 3, 7),
    reference=attention_twin,
    leaves=("x.k", "x.q"),
    cause="swapped",
)
def queries_and_keys_exchanged(residuals, g):
    q, k, v, probs, H = residuals
    G, K = k.shape[1], k.shape[3]
    g = attention._group(g, G)
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = softmax_vjp(probs, g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k / math.sqrt(K)
    d_k = d_scores.swapaxes(-1, -2) @ q
    return {}, ungroup((d_k, G), (d_q, H), (d_v, G))


@plant(
    BUGS,
    "attention: np.sqrt makes d_q float64",
    attention,
    {},
    qkv(216, 2, 5, 7, 3, 3, 5),
    reference=attention_twin,
    leaves=("x.q",),
    cause="precision",
    says=("float64",),
)
def root_is_float64(residuals, g):
    q, k, v, probs, H = residuals
    G, K = k.shape[1], k.shape[3]
    g = attention._group(g, G)
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = softmax_vjp(probs, g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k / np.sqrt(K)
    d_k = d_scores.swapaxes(-1, -2) @ q
    return {}, ungroup((d_q, H), (d_k, G), (d_v, G))


@plant(
    BUGS,
    "rotary: g is turned by the angle and not back",
    rotary,
    {},
    draw(219, 2, 5, 3, 6),
    positions=np.arange(5),
    reference=rotary_twin,
    leaves=("x",),
    cause="jacobian not transposed",
)
def turned_forward_again(residuals, g):
    rotation, _, _ = residuals
    pairs = g[..., 0::2] + 1j * g[..., 1::2]
    turned = pairs * rotation
    d_x = np.stack([turned.real, turned.imag], axis=-1)
    return {}, d_x.reshape(g.shape)


@plant(
    BUGS,
    "alibi: the minus before the slope is forgotten",
    alibi,
    {"slope": draw(220, 3)},
    draw(221, 2, 7, 3, 7),
    leaves=("params.slope",),
    cause="sign",
)
def minus_forgotten(residuals, g):
    probs, distance = residuals
    d_scores = probs * (g - (g * probs).sum(axis=-1, keepdims=True))
    return {"slope": (d_scores * distance).sum(axis=(0, 1, 3))}, d_scores


BLOCK = {"d_model": 12, "n_heads": 6, "n_kv_heads": 2, "dtype": np.float64}
SIDE = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(5)}


def near(params, seed):
    """Move every leaf, so that no scale stays at one."""
    rng = np.random.default_rng(seed)
    return pytree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), params)


@plant(
    BUGS,
    "self_attention: g is reshaped to heads before time",
    self_attention,
    near(self_attention.init((222,), **BLOCK), 223),
    draw(224, 2, 5, 12),
    **SIDE,
    reference=self_attention_twin,
    leaves=("params.qkv", "x"),
    cause="misplaced",
)
def heads_before_time(residuals, g):
    B, T = g.shape[:2]
    H, K = residuals.attention.y.shape[2:]
    d_out, d_attended = linear.vjp(residuals.out, g)
    d_heads = np.ascontiguousarray(d_attended.reshape(B, H, T, K).swapaxes(1, 2))
    _, d_packed = rotary_attention.vjp(residuals.attention, d_heads.reshape(B, T, H * K))
    d_qkv, d_x = linear.vjp(residuals.qkv, d_packed)
    return {"qkv": d_qkv["weight"], "out": d_out["weight"]}, d_x


@plant(
    BUGS,
    "transformer_block: x gets the first branch and not the skip",
    transformer_block,
    near(transformer_block.init((225,), **BLOCK, d_ff=7), 226),
    draw(227, 2, 5, 12),
    **SIDE,
    reference=transformer_block_twin,
    leaves=("x",),
    cause="missing term",
)
def no_skip(residuals, g):
    d_mlp, d_h = swiglu.vjp(residuals.mlp, g)
    d_norm2, d_branch = rms_norm.vjp(residuals.norm2, d_h)
    g = g + d_branch
    d_attention, d_h = self_attention.vjp(residuals.attention, g)
    d_norm1, d_x = rms_norm.vjp(residuals.norm1, d_h)
    return {"norm1": d_norm1, "attention": d_attention, "norm2": d_norm2, "mlp": d_mlp}, d_x
