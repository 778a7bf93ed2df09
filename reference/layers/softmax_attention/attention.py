"""Scaled dot-product attention in JAX (Vaswani et al. 2017, eq. 1), materialised."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def forward(
    params,
    x,
    *,
    visibility=(False, 0, None, None, None),
    soft_cap=None,
    alibi=False,
    dropout=0.0,
    key=None,
):
    """Return softmax(q·kᵀ/√K)·v with every key/value head repeated for its group of queries."""
    q, k, v = x
    causal, offset, window, mask, first = visibility
    H, K = q.shape[2:]
    k, v = (jnp.repeat(a, H // a.shape[2], axis=2) for a in (k, v))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(K).astype(q.dtype)
    B, _, T, S = scores.shape
    if soft_cap is not None:
        scores = jnp.tanh(scores / soft_cap) * soft_cap
    place = np.arange(T)[:, None] + np.reshape(offset, (-1, 1, 1, 1))  # of each query
    if alibi:
        slopes = np.array(_slopes(H), scores.dtype)[:, None, None]
        scores = scores - slopes * np.abs(place - np.arange(S)).astype(scores.dtype)
    visible = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    if causal:
        visible = visible & (np.arange(S) <= place)
    if window is not None:
        visible = visible & (np.arange(S) > place - window)
    if first is not None:
        visible = visible & (np.arange(S) >= first[:, None, :, None])
    scores = jnp.where(visible, scores, -1e30)
    if "sinks" in params:  # one more key, without a value
        sink = jnp.broadcast_to(params["sinks"][:, None, None], (B, H, T, 1))
        scores = jnp.concatenate([scores, sink], axis=-1)
    probs = jnp.where(visible, jax.nn.softmax(scores, axis=-1)[..., :S], 0)
    if key is not None and dropout > 0:
        sequence = np.random.SeedSequence(key[0], spawn_key=key[1:])
        draws = np.random.Generator(np.random.PCG64(sequence)).random(probs.shape, np.float32)
        probs = jnp.where(draws < 1 - dropout, probs / max(1 - dropout, 1e-30), 0)
    return jnp.einsum("bhts,bshk->bthk", probs, v)


def _slopes(n):
    """Return the slopes of ALiBi as its authors' `get_slopes` does."""
    if math.log2(n).is_integer():
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start ** (i + 1) for i in range(n)]
    below = 2 ** math.floor(math.log2(n))
    return _slopes(below) + _slopes(2 * below)[0::2][: n - below]
