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
    B, T = prompts.shape
    K = params["embedding"].shape[1] // n_heads
    cos, sin = map(jnp.asarray, jax_model.angles(T + n_new, K))
    empty = jnp.zeros((B, n_heads, T + n_new, K), jnp.float32)
    cache = [(empty, empty)] * len(params["blocks"])

    def advance(cache, tokens, start):
        """Return the cache with the tokens (B, t) that follow, and the next token (B)."""
        t, new_cache = tokens.shape[1], []
        turn = [jax.lax.dynamic_slice_in_dim(table, start, t) for table in (cos, sin)]
        x = params["embedding"][tokens]
        for one, (keys, values) in zip(params["blocks"], cache, strict=True):

            def attention(q, k, v, keys=keys, values=values):
                keys = _put(keys, k, start)
                values = _put(values, v, start)
                new_cache.append((keys, values))
                return _attend(q, keys, values, start)

            x = jax_model.block(one, x, n_heads, *turn, attention)
        last = jax_model.rms_norm(params["norm"], x[:, -1])
        return new_cache, jnp.argmax(last @ params["embedding"].T, axis=-1).astype(jnp.int32)

    def step(carry, position):
        cache, token = carry
        cache, following = advance(cache, token[:, None], position)
        return (cache, following), token

    first = advance(cache, prompts, 0)
    (_, last), tokens = jax.lax.scan(step, first, T + jnp.arange(n_new - 1))
    return jnp.concatenate([tokens.T, last[:, None]], axis=1)


def _put(cache, new, start):
    """Write new (B, t, H, K) to the cache (B, H, S, K) from position start on."""
    return jax.lax.dynamic_update_slice_in_dim(cache, new.swapaxes(1, 2), start, axis=2)


def _attend(q, keys, values, start):
    """Return attention of q (B, t, H, K), at positions from start on, over the cache."""
    q = q.swapaxes(1, 2) * q.shape[-1] ** -0.5  # (B, H, t, K)
    scores = q @ keys.swapaxes(-1, -2)  # (B, H, t, S)
    visible = jnp.arange(keys.shape[2]) <= start + jnp.arange(q.shape[2])[:, None]
    probs = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return (probs @ values).swapaxes(1, 2)
