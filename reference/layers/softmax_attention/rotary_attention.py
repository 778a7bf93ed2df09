"""Causal self-attention with rotary positions over packed heads, in JAX."""

import jax.numpy as jnp

from . import attention, rotary


def forward(
    params, x, *, n_heads, n_kv_heads=None, positions, theta=10000.0, pairing="interleaved"
):
    """Unpack the heads, turn queries and keys, attend."""
    groups = n_heads if n_kv_heads is None else n_kv_heads
    size = x.shape[-1] // (n_heads + 2 * groups)
    heads = x.reshape(*x.shape[:2], n_heads + 2 * groups, size)
    q, k, v = jnp.split(heads, [n_heads, n_heads + groups], axis=2)
    turning = {"positions": positions, "theta": theta, "pairing": pairing}
    q, k = rotary.forward({}, q, **turning), rotary.forward({}, k, **turning)
    y = attention.forward({}, (q, k, v), visibility=(True, 0, None, None, None))
    return y.reshape(*x.shape[:2], n_heads * size)
