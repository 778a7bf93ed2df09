"""JAX's generation: prefill and a `lax.scan` over the new tokens in one `jit`, with a cache."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness.protocol import Actions
from harness.workload import read

from . import jax_model


def generation(workload: str, *, n_prompt: int, n_new: int) -> tuple[dict[str, Any], Actions]:
    """Return a greedy decoder of the first prompts of a workload."""
    given = read(workload)
    params = jax_model.parameters(given)
    decode = jax.jit(partial(_decode, n_heads=given.setting.n_heads, n_new=n_new))
    prompts = given.tokens[0, :, :n_prompt]

    def texts(batch: int, n: int) -> dict[str, Any]:
        seconds, tokens = [], np.zeros(0)
        for _ in range(n):
            start = time.perf_counter()
            tokens = np.asarray(decode(params, prompts[:batch]))
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "tokens": tokens.tolist()}

    return {"jax": jax.__version__}, {"texts": texts}


def _decode(params, prompts, *, n_heads, n_new):
    """Return n_new greedy tokens for each prompt, (B, n_new)."""
    (B, T), D = prompts.shape, params["embedding"].shape[1]
    S, sizes = T + n_new, (3, n_heads, D // n_heads)
    cos, sin = map(jnp.asarray, jax_model.angles(S, D // n_heads))

    def prefill():
        """Return the cache of the prompts, (B, H, S, K) each, and the next token of each."""
        cache, x = [], params["embedding"][prompts]
        for one in params["blocks"]:

            def attention(q, k, v):
                cache.append([_extended(states, S) for states in (k, v)])
                return jax_model.manual_attention(q, k, v)

            x = jax_model.block(one, x, n_heads, cos[:T], sin[:T], attention)
        return cache, jax.vmap(following)(x[:, -1])

    def step(carry, position):
        """Take one token of one text, without an axis for a batch: XLA does vectors faster."""
        cache, token = carry
        x, new_cache = params["embedding"][token], []
        visible = jnp.arange(S) <= position
        for one, (keys, values) in zip(params["blocks"], cache, strict=True):
            q, k, v = (jax_model.rms_norm(one["norm1"], x) @ one["qkv"]).reshape(sizes)
            q, k = (jax_model.rotate(states, cos[position], sin[position]) for states in (q, k))
            keys = jax.lax.dynamic_update_index_in_dim(keys, k, position, axis=1)
            values = jax.lax.dynamic_update_index_in_dim(values, v, position, axis=1)
            scores = jnp.einsum("hk,hsk->hs", q * q.shape[-1] ** -0.5, keys)
            probs = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
            x = x + jnp.einsum("hs,hsk->hk", probs, values).reshape(D) @ one["out"]
            gate, up = jnp.split(jax_model.rms_norm(one["norm2"], x) @ one["gate_up"], 2)
            x = x + (jax.nn.silu(gate) * up) @ one["down"]
            new_cache.append([keys, values])
        return (new_cache, following(x)), token

    def following(x):
        scores = params["embedding"] @ jax_model.rms_norm(params["norm"], x)
        return jnp.argmax(scores).astype(jnp.int32)

    first, positions = prefill(), T + jnp.arange(n_new)
    if B == 1:
        one = jax.tree.map(lambda leaf: leaf[0], first)
        return jax.lax.scan(step, one, positions)[1][None]
    return jax.lax.scan(jax.vmap(step, (0, None)), first, positions)[1].T


def _extended(states, S):
    """Return (B, T, H, K) as (B, H, S, K), with zeros behind."""
    room = [(0, 0), (0, 0), (0, S - states.shape[1]), (0, 0)]
    return jnp.pad(states.swapaxes(1, 2), room)
