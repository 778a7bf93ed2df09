"""Attention of other kinds, its temperatures, masks and biases."""

import numpy as np

from functional_lm.layers.attention import QKV
from functional_lm.numerics import softmax_vjp

from ..bug import Bug, draw, plant
from ..research_mixing import (
    cosine_attention,
    linear_attention,
    relative_bias,
    temperature_softmax,
    unit_vjp,
)

BUGS: list[Bug] = []

WARM = {"temperature": np.array(1.7)}
SCORES = draw(1201, 2, 3, 7)


@plant(
    BUGS,
    "temperature_softmax: the minus of d(1/temperature) is forgotten",
    temperature_softmax,
    WARM,
    SCORES,
    leaves=("params.temperature",),
    cause="sign",
)
def minus_forgotten(residuals, g):
    x, probs, temperature = residuals
    d_scores = softmax_vjp(probs, g)
    d_temperature = (d_scores * x).sum() / (temperature * temperature)
    return {"temperature": d_temperature}, d_scores / temperature


@plant(
    BUGS,
    "temperature_softmax: the temperature's gradient is summed over each row only",
    temperature_softmax,
    WARM,
    SCORES,
    leaves=("params.temperature",),
    cause="missing sum",
)
def summed_over_each_row_only(residuals, g):
    x, probs, temperature = residuals
    d_scores = softmax_vjp(probs, g)
    d_temperature = -(d_scores * x).sum(axis=-1) / (temperature * temperature)
    return {"temperature": d_temperature}, d_scores / temperature


HEADS = {"scale": draw(1202, 3, scale=2.0)}
ATTENDED = QKV(draw(1203, 2, 5, 3, 7), draw(1204, 2, 11, 3, 7), draw(1205, 2, 11, 3, 7))


def to_scores(probs, v, g):
    """Return the cotangents of the values and of what goes into the softmax."""
    d_v = np.einsum("bhts,bthk->bshk", probs, g)
    return d_v, softmax_vjp(probs, np.einsum("bthk,bshk->bhts", g, v))


@plant(
    BUGS,
    "cosine_attention: the scale's gradient meets the scores, which have the scale in them",
    cosine_attention,
    HEADS,
    ATTENDED,
    leaves=("params.scale",),
    cause="extra factor",
    says=("scale",),
)
def scores_for_cosines(residuals, g):
    q, q_norm, k, k_norm, v, cosines, probs, scale = residuals
    d_v, d_scores = to_scores(probs, v, g)
    d_scale = (d_scores * (scale * cosines)).sum(axis=(0, 2, 3))
    d_cosines = d_scores * scale
    d_q = unit_vjp(q, q_norm, np.einsum("bhts,bshk->bthk", d_cosines, k))
    d_k = unit_vjp(k, k_norm, np.einsum("bhts,bthk->bshk", d_cosines, q))
    return {"scale": d_scale}, QKV(d_q, d_k, d_v)


@plant(
    BUGS,
    "cosine_attention: the scale is left out on the way to the keys",
    cosine_attention,
    HEADS,
    ATTENDED,
    leaves=("x.k",),
    cause="missing factor",
    says=("scale",),
)
def keys_without_the_scale(residuals, g):
    q, q_norm, k, k_norm, v, cosines, probs, scale = residuals
    d_v, d_scores = to_scores(probs, v, g)
    d_scale = (d_scores * cosines).sum(axis=(0, 2, 3))
    d_q = unit_vjp(q, q_norm, np.einsum("bhts,bshk->bthk", d_scores * scale, k))
    d_k = unit_vjp(k, k_norm, np.einsum("bhts,bthk->bshk", d_scores, q))
    return {"scale": d_scale}, QKV(d_q, d_k, d_v)


def keep_float32(params, x):
    y, (*kept, cosines, probs, scale) = cosine_attention.forward(params, x)
    return y, (*kept, cosines, probs.astype(np.float32), scale)


@plant(
    BUGS,
    "cosine_attention: the probabilities are kept in float32 whatever comes in",
    cosine_attention,
    HEADS,
    ATTENDED,
    forward=keep_float32,
    leaves=("params.scale", "x.k", "x.q", "x.v"),
    cause="precision",
    says=("float32",),
)
def kept_in_float32(residuals, g):
    *kept, probs, scale = residuals
    return cosine_attention.vjp((*kept, probs.astype(g.dtype), scale), g)


MEMORY = QKV(draw(1206, 2, 7, 3), draw(1207, 2, 7, 3), draw(1208, 2, 7, 5))


@plant(
    BUGS,
    "linear_attention: later keys get a gradient from earlier queries",
    linear_attention,
    {},
    MEMORY,
    leaves=("x.k", "x.q"),
    cause="mask leak",
)
def scores_not_masked(residuals, g):
    q, k, v, scores = residuals
    d_scores = g @ v.swapaxes(1, 2)
    return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, scores.swapaxes(1, 2) @ g)


@plant(
    BUGS,
    "linear_attention: the values look back where they should look ahead",
    linear_attention,
    {},
    MEMORY,
    leaves=("x.v",),
    cause="jacobian not transposed",
)
def values_look_back(residuals, g):
    q, k, v, scores = residuals
    d_scores = np.tril(g @ v.swapaxes(1, 2))
    return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, scores @ g)


TABLE = {"table": draw(1209, 3, 5)}
LOGITS = draw(1210, 2, 5, 3, 7)


@plant(
    BUGS,
    "relative_bias: += with the table of distances counts each distance once",
    relative_bias,
    TABLE,
    LOGITS,
    reach=2,
    leaves=("params.table",),
    cause="scatter",
)
def each_distance_once(residuals, g):
    probs, bucket, table = residuals
    d_scores = softmax_vjp(probs, g)
    d_table = np.zeros_like(table)
    d_table[:, bucket] += d_scores.sum(axis=0).swapaxes(0, 1)
    return {"table": d_table}, d_scores


@plant(
    BUGS,
    "relative_bias: key minus query where the forward has query minus key",
    relative_bias,
    TABLE,
    LOGITS,
    reach=2,
    leaves=("params.table",),
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
