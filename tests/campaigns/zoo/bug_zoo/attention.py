"""Attention, its positions, and the block around it."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, draw, plant_in, probabilities, softmax_vjp
from .maps import linear, swiglu
from .norms import rms_norm


class QKV(NamedTuple):
    """The input of `attention` and its like."""

    q: Any  # (B, T, H, K)
    k: Any  # (B, S, G, K)
    v: Any  # (B, S, G, K)


def group(x, n_groups):
    """Stack the heads of a group as rows: (B, T, H, K) to (B, G, H/G·T, K)."""
    B, T, H, K = x.shape
    return x.swapaxes(1, 2).reshape(B, n_groups, H // n_groups * T, K)


def ungroup(*heads):
    """Put the gradients back to (B, T, heads, K), each from (B, G, R·T, K)."""
    return QKV(*(ungrouped(grouped, n) for grouped, n in heads))


def ungrouped(x, n_heads):
    B, G, RT, K = x.shape
    return np.ascontiguousarray(x.reshape(B, n_heads, G * RT // n_heads, K).swapaxes(1, 2))


def to_grouped_scores(residuals, g):
    """Return the cotangents of the values and of what goes into the softmax of `attention`."""
    _, k, v, probs, _ = residuals
    g = group(g, k.shape[1])
    return probs.swapaxes(-1, -2) @ g, softmax_vjp(probs, g @ v.swapaxes(-1, -2))


class attention(Layer):
    """Each query's mean of the values, by its match with the keys (Vaswani et al. 2017)."""

    def forward(params, x, *, causal=False):
        (B, T, H, K), (S, G) = x.q.shape, x.k.shape[1:3]
        q, k, v = group(x.q / math.sqrt(K), G), group(x.k, G), group(x.v, G)
        scores = (q @ k.swapaxes(-1, -2)).reshape(B, H, T, S)
        if causal:
            scores = np.where(np.tri(T, S, dtype=bool), scores, -1e30).astype(scores.dtype)
        probs = probabilities(scores).reshape(B, G, H // G * T, S)
        return ungrouped(probs @ v, H), (q, k, v, probs, H)

    def vjp(residuals, g):
        q, k, _, _, H = residuals
        G, K = k.shape[1], k.shape[3]
        d_v, d_scores = to_grouped_scores(residuals, g)
        d_q = d_scores @ k / math.sqrt(K)
        d_k = d_scores.swapaxes(-1, -2) @ q  # q is over √K
        return {}, ungroup((d_q, H), (d_k, G), (d_v, G))

    def reference(params, x, *, causal=False):
        q, k, v = x
        repeats = q.shape[2] // k.shape[2]
        k, v = jnp.repeat(k, repeats, axis=2), jnp.repeat(v, repeats, axis=2)
        scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1]).astype(q.dtype)
        visible = np.tri(*scores.shape[-2:], dtype=bool) if causal else np.ones(1, bool)
        probs = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
        return jnp.einsum("bhts,bshk->bthk", jnp.where(visible, probs, 0), v)


class rotary(Layer):
    """Each pair of neighbours of a head turned by its position's angle (Su et al. 2021)."""

    class Residuals(NamedTuple):
        rotation: Any  # (T, 1, K/2) complex

    def turned(x, rotation):
        pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * rotation
        return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)

    def forward(params, x, *, positions):
        frequency = 10000.0 ** (np.arange(0, x.shape[-1], 2) / -x.shape[-1])
        angle = positions[:, None, None] * frequency
        rotation = np.exp(1j * angle).astype(np.result_type(x.dtype, np.complex64))
        return rotary.turned(x, rotation), rotary.Residuals(rotation)

    def vjp(residuals, g):
        return {}, rotary.turned(g, residuals.rotation.conj())

    def reference(params, x, *, positions):
        half = x.shape[-1] // 2
        angle = np.multiply.outer(positions, np.power(10000.0, -np.arange(half) / half))
        angle = angle[..., None, :]
        cos, sin = jnp.asarray(np.cos(angle), x.dtype), jnp.asarray(np.sin(angle), x.dtype)
        x1, x2 = x[..., 0::2], x[..., 1::2]
        return jnp.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], axis=-1).reshape(x.shape)


class self_attention(Layer):
    """Queries, keys and values from one projection, turned, attended causally, projected back."""

    class Residuals(NamedTuple):
        qkv: Any
        rotary: Any
        attention: Any
        out: Any

    def forward(params, x, *, n_heads, n_kv_heads, positions):
        H, G, K = n_heads, n_kv_heads, len(params["out"]) // n_heads
        packed, qkv = linear.forward({"weight": params["qkv"]}, x)
        heads = packed.reshape(*x.shape[:2], H + 2 * G, K)
        turned, turning = rotary.forward({}, heads[:, :, : H + G], positions=positions)
        attended, attending = attention.forward(
            {}, QKV(turned[:, :, :H], turned[:, :, H:], heads[:, :, H + G :]), causal=True
        )
        y, out = linear.forward({"weight": params["out"]}, attended.reshape(*x.shape[:2], H * K))
        return y, self_attention.Residuals(qkv, turning, attending, out)

    def vjp(residuals, g):
        d_out, d_attended = linear.vjp(residuals.out, g)
        d_qkv, d_x = self_attention.inner_vjp(
            residuals, self_attention.heads(residuals, d_attended)
        )
        return {"qkv": d_qkv["weight"], "out": d_out["weight"]}, d_x

    def heads(residuals, d_attended):
        """Return (B, T, H, K) of (B, T, H·K)."""
        H, K = residuals.attention[-1], residuals.attention[0].shape[-1]
        return d_attended.reshape(*d_attended.shape[:2], H, K)

    def inner_vjp(residuals, d_heads):
        _, d = attention.vjp(residuals.attention, d_heads)
        _, d_turned = rotary.vjp(residuals.rotary, np.concatenate([d.q, d.k], axis=2))
        d_packed = np.concatenate([d_turned, d.v], axis=2)
        B, T, heads, K = d_packed.shape
        return linear.vjp(residuals.qkv, d_packed.reshape(B, T, heads * K))

    def reference(params, x, *, n_heads, n_kv_heads, positions):
        size = params["out"].shape[0] // n_heads
        widths = [n_heads * size, (n_heads + n_kv_heads) * size]
        q, k, v = (
            (x @ weight).reshape(*x.shape[:2], weight.shape[1] // size, size)
            for weight in jnp.split(params["qkv"], widths, axis=1)
        )
        q, k = (rotary.reference({}, heads, positions=positions) for heads in (q, k))
        y = attention.reference({}, (q, k, v), causal=True)
        return y.reshape(*x.shape[:2], n_heads * size) @ params["out"]


class transformer_block(Layer):
    """x + attention of its norm, then the same with swiglu."""

    class Residuals(NamedTuple):
        norm1: Any
        attention: Any
        norm2: Any
        mlp: Any

    def forward(params, x, **heads):
        h, norm1 = rms_norm.forward(params["norm1"], x)
        a, attended = self_attention.forward(params["attention"], h, **heads)
        x = x + a
        h, norm2 = rms_norm.forward(params["norm2"], x)
        m, mlp = swiglu.forward(params["mlp"], h)
        return x + m, transformer_block.Residuals(norm1, attended, norm2, mlp)

    def vjp(residuals, g):
        d_mlp, d_h = swiglu.vjp(residuals.mlp, g)
        d_norm2, d_branch = rms_norm.vjp(residuals.norm2, d_h)
        g = g + d_branch
        d_attention, d_h = self_attention.vjp(residuals.attention, g)
        d_norm1, d_branch = rms_norm.vjp(residuals.norm1, d_h)
        d_params = {"norm1": d_norm1, "attention": d_attention, "norm2": d_norm2, "mlp": d_mlp}
        return d_params, g + d_branch

    def reference(params, x, **heads):
        h = rms_norm.reference(params["norm1"], x)
        x = x + self_attention.reference(params["attention"], h, **heads)
        return x + swiglu.reference(params["mlp"], rms_norm.reference(params["norm2"], x))


class alibi(Layer):
    """Causal attention weights: softmax of scores less slope·distance (Press et al. 2022)."""

    SHARES_MEMORY = "y is the residual"

    def forward(params, x):
        slope = params["slope"]  # (H,)
        T, _, S = x.shape[1:]  # (B, T, H, S)
        distance = (np.arange(T)[:, None, None] - np.arange(S)).astype(x.dtype)  # (T, 1, S)
        scores = x - slope[:, None] * distance
        probs = probabilities(np.where(distance >= 0, scores, -math.inf))
        return probs, (probs, distance)

    def vjp(residuals, g):
        probs, distance = residuals
        d_scores = probs * (g - (g * probs).sum(axis=-1, keepdims=True))
        return {"slope": -(d_scores * distance).sum(axis=(0, 1, 3))}, d_scores

    def reference(params, x):
        distance = np.arange(x.shape[1])[:, None, None] - np.arange(x.shape[3])
        scores = x - params["slope"][:, None] * distance
        return jax.nn.softmax(jnp.where(distance >= 0, scores, -jnp.inf), axis=-1)


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
        probs = probabilities(scale * cosines)
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


class relative_bias(Layer):
    """The softmax of scores plus a number for each head and distance (Raffel et al. 2019)."""

    SHARES_MEMORY = "y is the residual"

    def forward(params, x, *, reach):
        T, _, S = x.shape[1:]  # (B, T, H, S)
        distance = np.arange(T)[:, None] - np.arange(S)
        bucket = np.clip(distance, -reach, reach) + reach  # (T, S)
        bias = params["table"][:, bucket]  # (H, T, S)
        probs = probabilities(x + bias.swapaxes(0, 1))
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


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


def qkv(seed, B, T, S, H, G, K):
    return QKV(draw(seed, B, T, H, K), draw(seed + 1, B, S, G, K), draw(seed + 2, B, S, G, K))


@plant(
    "attention: 1/√K is left out of d_q",
    attention,
    {},
    qkv(201, 2, 5, 7, 3, 3, 5),
    leaves="x.q",
    cause="constant factor",
)
def query_not_scaled(residuals, g):
    _, k, *_, H = residuals
    _, d_x = attention.vjp(residuals, g)
    _, d_scores = to_grouped_scores(residuals, g)
    return {}, d_x._replace(q=ungrouped(d_scores @ k, H))


@plant(
    "attention: the softmax is differentiated entry by entry, without the sum over the keys",
    attention,
    {},
    qkv(204, 2, 5, 7, 6, 2, 3),
    leaves="x.k x.q",
    cause="missing term",
)
def no_sum_over_the_keys(residuals, g):
    q, k, v, probs, H = residuals
    G, K = k.shape[1], k.shape[3]
    g = group(g, G)
    d_v = probs.swapaxes(-1, -2) @ g
    d_scores = probs * (g @ v.swapaxes(-1, -2))
    d_q = d_scores @ k / math.sqrt(K)
    d_k = d_scores.swapaxes(-1, -2) @ q
    return {}, ungroup((d_q, H), (d_k, G), (d_v, G))


@plant(
    "attention: d_k of the last query head of a group overwrites the others",
    attention,
    {},
    qkv(207, 2, 5, 7, 6, 2, 3),
    leaves="x.k",
    cause="slice kept",
)
def last_head_of_a_group(residuals, g):
    q, k, *_, H = residuals
    T, G = g.shape[1], k.shape[1]
    _, d_x = attention.vjp(residuals, g)
    _, d_scores = to_grouped_scores(residuals, g)
    for head in range(H // G):
        rows = slice(head * T, (head + 1) * T)
        d_k = d_scores[:, :, rows].swapaxes(-1, -2) @ q[:, :, rows]
    return {}, d_x._replace(k=ungrouped(d_k, G))


@plant(
    "attention: the probabilities are computed anew without the causal mask",
    attention,
    {},
    qkv(210, 2, 7, 7, 3, 3, 5),
    causal=True,
    leaves="x.k x.q x.v",
    cause="mask leak",
)
def computed_anew_without_the_mask(residuals, g):
    q, k, v, _, H = residuals
    return attention.vjp((q, k, v, probabilities(q @ k.swapaxes(-1, -2)), H), g)


@plant(
    "attention: d_q and d_k are returned in the other order",
    attention,
    {},
    qkv(213, 2, 5, 5, 3, 3, 7),
    leaves="x.k x.q",
    cause="swapped",
)
def queries_and_keys_exchanged(residuals, g):
    _, d_x = attention.vjp(residuals, g)
    return {}, QKV(d_x.k, d_x.q, d_x.v)


@plant(
    "attention: np.sqrt makes d_q float64",
    attention,
    {},
    qkv(216, 2, 5, 7, 3, 3, 5),
    leaves="x.q",
    cause="precision",
    says=("float64",),
)
def root_is_float64(residuals, g):
    _, k, *_, H = residuals
    _, d_x = attention.vjp(residuals, g)
    _, d_scores = to_grouped_scores(residuals, g)
    return {}, d_x._replace(q=ungrouped(d_scores @ k / np.sqrt(k.shape[3]), H))


@plant(
    "rotary: g is turned by the angle and not back",
    rotary,
    {},
    draw(219, 2, 5, 3, 6),
    positions=np.arange(5),
    leaves="x",
    cause="jacobian not transposed",
)
def turned_forward_again(residuals, g):
    return {}, rotary.turned(g, residuals.rotation)


@plant(
    "alibi: the minus before the slope is forgotten",
    alibi,
    {"slope": draw(220, 3)},
    draw(221, 2, 7, 3, 7),
    leaves="params.slope",
    cause="sign",
)
def minus_forgotten(residuals, g):
    d_params, d_scores = alibi.vjp(residuals, g)
    return {"slope": -d_params["slope"]}, d_scores


PROJECTIONS = {"qkv": draw(222, 12, 20, scale=0.5), "out": draw(223, 12, 12, scale=0.5)}
BLOCK = {
    "norm1": {"scale": draw(225, 12)},
    "attention": PROJECTIONS,
    "norm2": {"scale": draw(226, 12)},
    "mlp": {"gate_up": draw(228, 2, 12, 7, scale=0.5), "down": draw(229, 7, 12, scale=0.5)},
}
SIDE = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(5)}


@plant(
    "self_attention: g is reshaped to heads before time",
    self_attention,
    PROJECTIONS,
    draw(224, 2, 5, 12),
    **SIDE,
    leaves="params.qkv x",
    cause="misplaced",
)
def heads_before_time(residuals, g):
    d_out, d_attended = linear.vjp(residuals.out, g)
    B, T, H, K = self_attention.heads(residuals, d_attended).shape
    d_heads = d_attended.reshape(B, H, T, K).swapaxes(1, 2)
    d_qkv, d_x = self_attention.inner_vjp(residuals, d_heads)
    return {"qkv": d_qkv["weight"], "out": d_out["weight"]}, d_x


@plant(
    "transformer_block: x gets the first branch and not the skip",
    transformer_block,
    BLOCK,
    draw(227, 2, 5, 12),
    **SIDE,
    leaves="x",
    cause="missing term",
)
def no_skip(residuals, g):
    d_mlp, d_h = swiglu.vjp(residuals.mlp, g)
    d_norm2, d_branch = rms_norm.vjp(residuals.norm2, d_h)
    g = g + d_branch
    d_attention, d_h = self_attention.vjp(residuals.attention, g)
    d_norm1, d_x = rms_norm.vjp(residuals.norm1, d_h)
    return {"norm1": d_norm1, "attention": d_attention, "norm2": d_norm2, "mlp": d_mlp}, d_x


HEADS = {"scale": draw(1202, 3, scale=2.0)}
ATTENDED = QKV(draw(1203, 2, 5, 3, 7), draw(1204, 2, 11, 3, 7), draw(1205, 2, 11, 3, 7))


def to_scores(probs, v, g):
    """Return the cotangents of the values and of what goes into the softmax."""
    d_v = np.einsum("bhts,bthk->bshk", probs, g)
    return d_v, softmax_vjp(probs, np.einsum("bthk,bshk->bhts", g, v))


COSINE_ATTENTION = (cosine_attention, HEADS, ATTENDED)


@plant(
    "cosine_attention: the scale's gradient meets the scores, which have the scale in them",
    *COSINE_ATTENTION,
    leaves="params.scale",
    cause="extra factor",
    says=("scale",),
)
def scores_for_cosines(residuals, g):
    *_, v, cosines, probs, scale = residuals
    _, d_x = cosine_attention.vjp(residuals, g)
    _, d_scores = to_scores(probs, v, g)
    return {"scale": (d_scores * (scale * cosines)).sum(axis=(0, 2, 3))}, d_x


@plant(
    "cosine_attention: the scale is left out on the way to the keys",
    *COSINE_ATTENTION,
    leaves="x.k",
    cause="missing factor",
    says=("scale",),
)
def keys_without_the_scale(residuals, g):
    q, _, k, k_norm, v, _, probs, _ = residuals
    d_params, d_x = cosine_attention.vjp(residuals, g)
    _, d_scores = to_scores(probs, v, g)
    d_k = np.einsum("bhts,bthk->bshk", d_scores, q)
    return d_params, d_x._replace(k=unit_vjp(k, k_norm, d_k))


def keep_float32(params, x):
    y, (*kept, cosines, probs, scale) = cosine_attention.forward(params, x)
    return y, (*kept, cosines, probs.astype(np.float32), scale)


@plant(
    "cosine_attention: the probabilities are kept in float32 whatever comes in",
    *COSINE_ATTENTION,
    forward=keep_float32,
    leaves="params.scale x.k x.q x.v",
    cause="precision",
    says=("float32",),
)
def kept_in_float32(residuals, g):
    *kept, probs, scale = residuals
    return cosine_attention.vjp((*kept, probs.astype(g.dtype), scale), g)


MEMORY = QKV(draw(1206, 2, 7, 3), draw(1207, 2, 7, 3), draw(1208, 2, 7, 5))
LINEAR_ATTENTION = (linear_attention, {}, MEMORY)


@plant(
    "linear_attention: later keys get a gradient from earlier queries",
    *LINEAR_ATTENTION,
    leaves="x.k x.q",
    cause="mask leak",
)
def scores_not_masked(residuals, g):
    q, k, v, _ = residuals
    _, d_x = linear_attention.vjp(residuals, g)
    d_scores = g @ v.swapaxes(1, 2)
    return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, d_x.v)


@plant(
    "linear_attention: the values look back where they should look ahead",
    *LINEAR_ATTENTION,
    leaves="x.v",
    cause="jacobian not transposed",
)
def values_look_back(residuals, g):
    _, d_x = linear_attention.vjp(residuals, g)
    return {}, d_x._replace(v=residuals[3] @ g)


TABLE = {"table": draw(1209, 3, 5)}
LOGITS = draw(1210, 2, 5, 3, 7)
RELATIVE_BIAS = (relative_bias, TABLE, LOGITS)


@plant(
    "relative_bias: += with the table of distances counts each distance once",
    *RELATIVE_BIAS,
    reach=2,
    leaves="params.table",
    cause="scatter",
)
def each_distance_once(residuals, g):
    probs, bucket, table = residuals
    d_scores = softmax_vjp(probs, g)
    d_table = np.zeros_like(table)
    d_table[:, bucket] += d_scores.sum(axis=0).swapaxes(0, 1)
    return {"table": d_table}, d_scores


@plant(
    "relative_bias: key minus query where the forward has query minus key",
    *RELATIVE_BIAS,
    reach=2,
    leaves="params.table",
    cause="misplaced",
)
def key_minus_query(residuals, g):
    probs, bucket, table = residuals
    d_scores = softmax_vjp(probs, g)
    reach = table.shape[1] // 2
    T, S = bucket.shape
    distance = np.clip(np.arange(S) - np.arange(T)[:, None], -reach, reach)
    d_table = np.zeros_like(table)
    d_bias = d_scores.sum(axis=0).swapaxes(0, 1)
    np.add.at(d_table, (slice(None), distance + reach), d_bias)
    return {"table": d_table}, d_scores
