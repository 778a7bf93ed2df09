"""More layers that a researcher brings along: what mixes over time, keys and pairs.

Each class is a layer: ``forward`` and ``vjp`` in NumPy, ``reference`` in JAX.
"""

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.layers.attention import QKV
from functional_lm.numerics import softmax, softmax_vjp

from .bug import rows
from .research_layers import Pair


class temperature_softmax:
    """The softmax of x over a learned temperature."""

    SHARES_MEMORY = "y is the residual"

    @staticmethod
    def forward(params, x):
        temperature = params["temperature"]
        probs = softmax(x / temperature)
        return probs, (x, probs, temperature)

    @staticmethod
    def vjp(residuals, g):
        x, probs, temperature = residuals
        d_scores = softmax_vjp(probs, g)
        d_temperature = -(d_scores * x).sum() / (temperature * temperature)
        return {"temperature": d_temperature}, d_scores / temperature

    @staticmethod
    def reference(params, x):
        return jax.nn.softmax(x / params["temperature"], axis=-1)


def unit(x):
    """Return the rows over their norms, and the norms."""
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / norm, norm


def unit_vjp(direction, norm, g):
    """Return the cotangent of the rows, given what `unit` made of them."""
    return (g - direction * (g * direction).sum(axis=-1, keepdims=True)) / norm


class cosine_attention:
    """Attention whose scores are cosines, times a number for each head (Henry et al. 2020)."""

    @staticmethod
    def forward(params, x):
        scale = params["scale"][:, None, None]  # (H, 1, 1)
        (q, q_norm), (k, k_norm) = unit(x.q), unit(x.k)
        cosines = np.einsum("bthk,bshk->bhts", q, k)
        probs = softmax(scale * cosines)
        y = np.einsum("bhts,bshk->bthk", probs, x.v)
        return y, (q, q_norm, k, k_norm, x.v, cosines, probs, scale)

    @staticmethod
    def vjp(residuals, g):
        q, q_norm, k, k_norm, v, cosines, probs, scale = residuals
        d_v = np.einsum("bhts,bthk->bshk", probs, g)
        d_scores = softmax_vjp(probs, np.einsum("bthk,bshk->bhts", g, v))
        d_scale = (d_scores * cosines).sum(axis=(0, 2, 3))
        d_cosines = d_scores * scale
        d_q = unit_vjp(q, q_norm, np.einsum("bhts,bshk->bthk", d_cosines, k))
        d_k = unit_vjp(k, k_norm, np.einsum("bhts,bthk->bshk", d_cosines, q))
        return {"scale": d_scale}, QKV(d_q, d_k, d_v)

    @staticmethod
    def reference(params, x):
        q = x.q / jnp.linalg.norm(x.q, axis=-1, keepdims=True)
        k = x.k / jnp.linalg.norm(x.k, axis=-1, keepdims=True)
        scores = jnp.einsum("bthk,bshk,h->bhts", q, k, params["scale"])
        return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores, axis=-1), x.v)


class linear_attention:
    """yₜ = Σₛ (qₜ·kₛ)·vₛ over s ≤ t."""

    @staticmethod
    def forward(params, x):
        q, k, v = x  # (B, T, K), (B, T, K), (B, T, V)
        scores = np.tril(q @ k.swapaxes(1, 2))
        return scores @ v, (q, k, v, scores)

    @staticmethod
    def vjp(residuals, g):
        q, k, v, scores = residuals
        d_scores = np.tril(g @ v.swapaxes(1, 2))
        return {}, QKV(d_scores @ k, d_scores.swapaxes(1, 2) @ q, scores.swapaxes(1, 2) @ g)

    @staticmethod
    def reference(params, x):
        memory = jnp.cumsum(x.k[:, :, :, None] * x.v[:, :, None, :], axis=1)
        return jnp.einsum("btk,btkv->btv", x.q, memory)


class relative_bias:
    """The softmax of scores plus a number for each head and distance (Raffel et al. 2019)."""

    SHARES_MEMORY = "y is the residual"

    @staticmethod
    def forward(params, x, *, reach):
        T, _, S = x.shape[1:]  # (B, T, H, S)
        distance = np.arange(T)[:, None] - np.arange(S)
        bucket = np.clip(distance, -reach, reach) + reach  # (T, S)
        bias = params["table"][:, bucket]  # (H, T, S)
        probs = softmax(x + bias.swapaxes(0, 1))
        return probs, (probs, bucket, params["table"])

    @staticmethod
    def vjp(residuals, g):
        probs, bucket, table = residuals
        d_scores = softmax_vjp(probs, g)
        d_bias = d_scores.sum(axis=0).swapaxes(0, 1)  # (H, T, S)
        d_table = np.zeros_like(table)
        np.add.at(d_table, (slice(None), bucket), d_bias)
        return {"table": d_table}, d_scores

    @staticmethod
    def reference(params, x, *, reach):
        distance = np.arange(x.shape[1])[:, None] - np.arange(x.shape[3])
        bucket = np.clip(distance, -reach, reach) + reach
        one_hot = jax.nn.one_hot(bucket, 2 * reach + 1, dtype=x.dtype)
        return jax.nn.softmax(x + jnp.einsum("hn,tsn->ths", params["table"], one_hot), axis=-1)


class token_shift:
    """yₜ = mix·xₜ + (1 − mix)·xₜ₋₁, as in RWKV."""

    @staticmethod
    def forward(params, x):
        mix = params["mix"]  # (D,)
        before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        return mix * x + (1.0 - mix) * before, (x, before, mix)

    @staticmethod
    def vjp(residuals, g):
        x, before, mix = residuals
        d_x = mix * g
        d_x[:, :-1] += (1.0 - mix) * g[:, 1:]
        return {"mix": rows(g * (x - before)).sum(axis=0)}, d_x

    @staticmethod
    def reference(params, x):
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return before + params["mix"] * (x - before)


class causal_mean:
    """yₜ is the mean of x up to t."""

    @staticmethod
    def forward(params, x):
        count = np.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]  # (T, 1)
        return np.cumsum(x, axis=1) / count, count

    @staticmethod
    def vjp(count, g):
        backwards = np.cumsum((g / count)[:, ::-1], axis=1)
        return {}, backwards[:, ::-1].copy()

    @staticmethod
    def reference(params, x):
        weights = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), x.dtype))
        return jnp.einsum("ts,bsd->btd", weights / weights.sum(axis=1, keepdims=True), x)


class masked_mean:
    """The mean over those times that a mask keeps."""

    @staticmethod
    def forward(params, x, *, mask):
        kept = mask[:, :, None].astype(x.dtype)  # (B, T, 1)
        count = kept.sum(axis=1)  # (B, 1)
        return (x * kept).sum(axis=1) / count, (kept, count)

    @staticmethod
    def vjp(residuals, g):
        kept, count = residuals
        return {}, kept * (g / count)[:, None]

    @staticmethod
    def reference(params, x, *, mask):
        return jnp.mean(x, axis=1, where=mask[:, :, None])


class max_pool:
    """The largest of each window over time, for each channel."""

    @staticmethod
    def forward(params, x, *, window, stride):
        starts = stride * np.arange((x.shape[1] - window) // stride + 1)
        windows = x[:, starts[:, None] + np.arange(window)]  # (B, P, W, D)
        best = windows.argmax(axis=2)  # (B, P, D)
        return windows.max(axis=2), (best, starts, x.shape)

    @staticmethod
    def vjp(residuals, g):
        best, starts, shape = residuals
        d_x = np.zeros(shape, g.dtype)
        b, _, d = np.indices(best.shape, sparse=True)
        np.add.at(d_x, (b, best + starts[:, None], d), g)
        return {}, d_x

    @staticmethod
    def reference(params, x, *, window, stride):
        first = range(0, x.shape[1] - window + 1, stride)
        return jnp.stack([x[:, i : i + window].max(axis=1) for i in first], axis=1)


class upsample:
    """Each time, so many times in a row."""

    @staticmethod
    def forward(params, x, *, times):
        return np.repeat(x, times, axis=1), (x.shape, times)

    @staticmethod
    def vjp(residuals, g):
        (B, T, D), times = residuals
        return {}, g.reshape(B, T, times, D).sum(axis=2)

    @staticmethod
    def reference(params, x, *, times):
        return x[:, jnp.arange(x.shape[1] * times) // times]


class last_step:
    """The last time of each sequence."""

    @staticmethod
    def forward(params, x):
        return x[:, -1].copy(), x.shape

    @staticmethod
    def vjp(shape, g):
        d_x = np.zeros(shape, g.dtype)
        d_x[:, -1] = g
        return {}, d_x

    @staticmethod
    def reference(params, x):
        return x[:, -1]


class mixup:
    """y = share·a + (1 − share)·b."""

    @staticmethod
    def forward(params, x, *, share):
        return share * x.a + (1.0 - share) * x.b, share

    @staticmethod
    def vjp(share, g):
        return {}, Pair(share * g, (1.0 - share) * g)

    @staticmethod
    def reference(params, x, *, share):
        return x.b + share * (x.a - x.b)
