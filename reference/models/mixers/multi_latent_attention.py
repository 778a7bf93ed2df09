"""Multi-head latent attention in JAX (DeepSeek-V2, section 2.1)."""

import jax.numpy as jnp

from ...layers import linear
from ...layers.norms import rms_norm
from ...layers.softmax_attention import attention as attention_layer
from ...layers.softmax_attention import rotary


def forward(
    params,
    x,
    *,
    n_heads,
    rope_size,
    q_rank=None,
    positions,
    begins=None,
    visibility=(True, 0, None, None, None),
    rope_theta=10000.0,
    rope_pairing="interleaved",
    soft_cap=None,
    attention="auto",
    q_down=linear,
    q_norm=rms_norm,
    q=linear,
    kv_down=linear,
    kv_norm=rms_norm,
    kv=linear,
    out=linear,
):
    """Compress keys and values, expand them, attend with a rotary part beside the contents."""
    turn = {"positions": positions, "theta": rope_theta, "pairing": rope_pairing}
    visibility = (*visibility[:4], visibility[4] if begins is None else begins)
    latent = kv_down.forward(params["kv_down"], x)
    latent, shared = latent[..., :-rope_size], latent[..., None, -rope_size:]
    latent = kv_norm.forward(params["kv_norm"], latent)
    shared = jnp.repeat(rotary.forward({}, shared, **turn), n_heads, axis=2)
    query = x
    if q_rank is not None:
        query = q_norm.forward(params["q_norm"], q_down.forward(params["q_down"], x))
    query = q.forward(params["q"], query)
    size = query.shape[-1] // n_heads - rope_size
    content, rope = jnp.split(query, [n_heads * size], axis=-1)
    content, rope = (
        h.reshape(*x.shape[:2], n_heads, h.shape[-1] // n_heads) for h in (content, rope)
    )
    query = jnp.concatenate([content, rotary.forward({}, rope, **turn)], axis=-1)
    key, value = jnp.split(kv.forward(params["kv"], latent), [n_heads * size], axis=-1)
    key, value = (h.reshape(*x.shape[:2], n_heads, h.shape[-1] // n_heads) for h in (key, value))
    key = jnp.concatenate([key, shared], axis=-1)
    scoring = {"visibility": visibility, "soft_cap": soft_cap}
    y = attention_layer.forward(params, (query, key, value), **scoring)
    return out.forward(params["out"], y.reshape(*x.shape[:2], n_heads * value.shape[-1]))
