"""Self-attention with rotary positions in JAX."""

import jax.numpy as jnp

from ..layers import attention as attention_layer
from ..layers import rotary


def forward(
    params,
    x,
    *,
    n_heads,
    n_kv_heads=None,
    positions,
    causal=True,
    mask=None,
    rope_theta=10000.0,
    rope_pairing="interleaved",
    attention="auto",
):
    """Project to queries, keys and values, turn queries and keys, attend, project back."""
    size = params["out"].shape[0] // n_heads
    widths = [n_heads * size, (n_heads + (n_kv_heads or n_heads)) * size]
    q, k, v = (
        (x @ weight).reshape(*x.shape[:2], weight.shape[1] // size, size)
        for weight in jnp.split(params["qkv"], widths, axis=1)
    )
    turn = {"positions": positions, "theta": rope_theta, "pairing": rope_pairing}
    q, k = rotary.forward({}, q, **turn), rotary.forward({}, k, **turn)
    y = attention_layer.forward({}, (q, k, v), causal=causal, mask=mask)
    return y.reshape(*x.shape[:2], n_heads * size) @ params["out"]
