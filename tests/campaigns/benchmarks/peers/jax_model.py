"""The same model in JAX, with the packed projections of a fast implementation.

Parameters are those of the workload, but for ``gate_up``: its two planes stand side by side, so
that one product serves both.
"""

import jax
import jax.numpy as jnp
import numpy as np
from harness.workload import Workload


def parameters(given: Workload):
    """Return the parameters as a tree of JAX arrays."""
    flat = {name: jnp.asarray(leaf) for name, leaf in given.take_params().items()}
    blocks = [
        {
            "norm1": flat[f"blocks.{i}.norm1.scale"],
            "qkv": flat[f"blocks.{i}.attention.qkv"],
            "out": flat[f"blocks.{i}.attention.out"],
            "norm2": flat[f"blocks.{i}.norm2.scale"],
            "gate_up": jnp.concatenate(list(flat[f"blocks.{i}.mlp.gate_up"]), axis=1),
            "down": flat[f"blocks.{i}.mlp.down"],
        }
        for i in range(given.setting.n_layers)
    ]
    return {"embedding": flat["embedding.weight"], "blocks": blocks, "norm": flat["norm.scale"]}


def rms_norm(scale, x):
    """Return x over the root of its mean square, times the scale."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6) * scale


def angles(seq_len: int, size: int):
    """Return cosines and sines (T, 1, K/2) of the rotary positions; constants of the program."""
    angle = np.multiply.outer(np.arange(seq_len), 1e4 ** -(np.arange(size // 2) / (size // 2)))
    return np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)


def rotate(x, cos, sin):
    """Turn neighbouring pairs of each head (..., T, H, K)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def manual_attention(q, k, v):
    """Return causal attention of (B, T, H, K), with the scores written out."""
    scores = jnp.einsum("bthk,bshk->bhts", q * q.shape[-1] ** -0.5, k)
    visible = jnp.tri(q.shape[1], dtype=bool)
    probs = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshk->bthk", probs, v)


def library_attention(q, k, v):
    """Return JAX's own attention."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=True)


ATTENTION = {"manual": manual_attention, "library": library_attention}


def block(params, x, n_heads, cos, sin, attention):
    """Return the output of one transformer block; attention maps q, k, v (B, T, H, K)."""
    B, T, D = x.shape
    packed = rms_norm(params["norm1"], x) @ params["qkv"]
    q, k, v = jnp.split(packed.reshape(B, T, 3 * n_heads, D // n_heads), 3, axis=2)
    attended = attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
    x = x + attended.reshape(B, T, D) @ params["out"]
    gate, up = jnp.split(rms_norm(params["norm2"], x) @ params["gate_up"], 2, axis=-1)
    return x + (jax.nn.silu(gate) * up) @ params["down"]


def logits(params, tokens, *, n_heads, attention):
    """Return the logits (B, T, V)."""
    x = params["embedding"][tokens]
    cos, sin = angles(tokens.shape[1], x.shape[-1] // n_heads)
    for one in params["blocks"]:
        x = block(one, x, n_heads, cos, sin, attention)
    return rms_norm(params["norm"], x) @ params["embedding"].T


def loss(params, tokens, targets, *, n_heads, attention):
    """Return the mean cross-entropy."""
    scores = logits(params, tokens, n_heads=n_heads, attention=attention)
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(scores, axis=-1) - chosen)
