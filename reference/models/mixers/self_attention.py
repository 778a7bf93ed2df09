"""Self-attention with rotary positions in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from ...layers import linear
from ...layers.softmax_attention import attention as attention_layer
from ...layers.softmax_attention import rotary


def forward(
    params,
    x,
    *,
    n_heads,
    n_kv_heads=None,
    value_size=None,
    positions,
    begins=None,
    visibility=(True, 0, None, None, None),
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
    prefix=None,
    gate=None,
    out=linear,
):
    """Project to queries, keys and values, norm and turn, attend, gate, project back."""
    visibility = (*visibility[:4], visibility[4] if begins is None else begins)
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
        front = 0 if prefix is None else len(params["prefix"]["keys"])
        turn = {"theta": rope_theta, "pairing": rope_pairing, "size": rope_size}
        q, k = (rotary.forward({}, h, positions=positions + front, **turn) for h in (q, k))
    v = v.reshape(*v.shape[:2], groups, value_size)
    if prefix is not None:
        q, k, v = prefix.forward(params["prefix"], (q, k, v))
        visibility = _with_prefix(visibility, q.shape[1], k.shape[1])
    scoring = {"visibility": visibility, "soft_cap": soft_cap, "alibi": alibi}
    dropout = {"dropout": attention_dropout, "key": None if key is None else (*key, 1)}
    y = attention_layer.forward(params, (q, k, v), **scoring, **dropout)
    y = y.reshape(*x.shape[:2], n_heads * value_size)
    if gate is not None:
        y = y * jax.nn.sigmoid(gate.forward(params["gate"], x))
    return out.forward(params["out"], y)


def _with_prefix(visibility, n_queries, n_keys):
    """Return what a query sees: all of the prefix, and of the text what it saw before."""
    _, offset, window, mask, first = visibility
    keys = np.arange(n_keys) - (n_keys - n_queries)  # positions in the text
    queries = np.arange(n_queries)[:, None] + offset
    seen = (keys <= queries) & (keys > queries - (window or n_keys))
    if mask is not None:
        seen = seen & np.concatenate([np.ones((*mask.shape[:-1], sum(keys < 0)), bool), mask], -1)
    if first is not None:
        seen = seen & (keys >= first[:, None, :, None])
    return True, offset + sum(keys < 0), None, seen | (keys < 0), None
