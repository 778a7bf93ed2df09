"""Self-attention with rotary positions in JAX."""

import jax
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
    rope_size=None,
    soft_cap=None,
    alibi=False,
    attention="auto",
    attention_dropout=0.0,
    key=None,
    qkv=linear,
    q_norm=None,
    k_norm=None,
    gate=None,
    out=linear,
):
    """Project to queries, keys and values, norm and turn, attend, gate, project back."""
    heads = qkv.forward(params["qkv"], x)
    groups = n_heads if n_kv_heads is None else n_kv_heads
    if value_size is None:
        value_size = heads.shape[-1] // (n_heads + 2 * groups)
    size = (heads.shape[-1] - groups * value_size) // (n_heads + groups)
    q, k, v = jnp.split(heads, [n_heads * size, (n_heads + groups) * size], axis=2)
    q, k = (h.reshape(*h.shape[:2], h.shape[2] // size, size) for h in (q, k))
    q = q if q_norm is None else q_norm.forward(params["q_norm"], q)
    k = k if k_norm is None else k_norm.forward(params["k_norm"], k)
    if rope_theta is not None:
        turn = {"theta": rope_theta, "pairing": rope_pairing, "size": rope_size}
        q, k = (rotary.forward({}, h, positions=positions, **turn) for h in (q, k))
    v = v.reshape(*v.shape[:2], groups, value_size)
    scoring = {"visibility": visibility, "soft_cap": soft_cap, "alibi": alibi}
    dropout = {"dropout": attention_dropout, "key": None if key is None else (*key, 1)}
    y = attention_layer.forward(params, (q, k, v), **scoring, **dropout)
    y = y.reshape(*x.shape[:2], n_heads * value_size)
    if gate is not None:
        y = y * jax.nn.sigmoid(gate.forward(params["gate"], x))
    return out.forward(params["out"], y)
