"""Self-attention with rotary positions in JAX."""

import jax.numpy as jnp

from ..layers import linear
from ..layers.softmax_attention import attention as attention_layer
from ..layers.softmax_attention import rotary


def forward(
    params,
    x,
    *,
    n_heads,
    n_kv_heads=None,
    value_size=None,
    positions,
    visibility=(True, 0, None, None),
    rope_theta=10000.0,
    rope_pairing="interleaved",
    attention="auto",
    qkv=linear,
    out=linear,
):
    """Project to queries, keys and values, turn queries and keys, attend, project back."""
    heads = qkv.forward(params["qkv"], x)
    groups = n_heads if n_kv_heads is None else n_kv_heads
    if value_size is None:
        value_size = heads.shape[-1] // (n_heads + 2 * groups)
    size = (heads.shape[-1] - groups * value_size) // (n_heads + groups)
    q, k, v = jnp.split(heads, [n_heads * size, (n_heads + groups) * size], axis=2)
    q, k = (h.reshape(*h.shape[:2], h.shape[2] // size, size) for h in (q, k))
    if rope_theta is not None:
        turn = {"positions": positions, "theta": rope_theta, "pairing": rope_pairing}
        q, k = rotary.forward({}, q, **turn), rotary.forward({}, k, **turn)
    v = v.reshape(*v.shape[:2], groups, value_size)
    y = attention_layer.forward({}, (q, k, v), visibility=visibility)
    return out.forward(params["out"], y.reshape(*x.shape[:2], n_heads * value_size))
