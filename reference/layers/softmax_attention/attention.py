"""Scaled dot-product attention in JAX (Vaswani et al. 2017, eq. 1), materialised."""

import jax
import jax.numpy as jnp
import numpy as np


def forward(params, x, *, visibility=(False, 0, None, None)):
    """Return softmax(q·kᵀ/√K)·v with every key/value head repeated for its group of queries."""
    q, k, v = x
    causal, offset, window, mask = visibility
    repeats = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, repeats, axis=2), jnp.repeat(v, repeats, axis=2)
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1]).astype(q.dtype)
    visible = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    if causal:
        visible = visible & np.tri(*scores.shape[-2:], offset, dtype=bool)
    if window is not None:
        visible = visible & ~np.tri(*scores.shape[-2:], offset - window, dtype=bool)
    probs = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    return jnp.einsum("bhts,bshk->bthk", jnp.where(visible, probs, 0), v)
