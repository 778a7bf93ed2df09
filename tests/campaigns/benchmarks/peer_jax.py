"""JAX: the whole step in one `jit` with donated buffers; generation as one `lax.scan`.

Packed projections as of a fast implementation; optax; attention written out or JAX's own.
"""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from workload import OPTIMIZER, Workload, draw, resident, timed


def step(setting: dict[str, Any], attention: str):
    """Return a trainer with one of `ATTENTION`."""
    given = draw(setting)
    update, state = trainer(given, attention)
    numbers = itertools.count()

    def step():
        nonlocal state
        state, loss = update(state, *given.batch(next(numbers)))
        jax.block_until_ready((state, loss))
        return loss

    def steps(n: int) -> dict[str, Any]:
        seconds, losses = timed(n, step)
        return {"seconds": seconds, "losses": list(map(float, losses))}

    return {"jax": jax.__version__}, steps


def memory(setting: dict[str, Any], attention: str):
    """Return a trainer that answers with the memory of its process."""
    jax.devices()  # the backend belongs to the import
    base = resident()["now"]
    about, train = step(setting, attention)

    def steps(n: int) -> dict[str, Any]:
        return {"losses": train(n)["losses"], "base": base, "peak": resident()["peak"]}

    return about, steps


def generation(
    setting: dict[str, Any], n_prompt: int, n_new: int, gain: float, trained: str | None = None
):
    """Return a greedy decoder of the first prompts."""
    given = draw(setting, gain, trained)
    params = parameters(given)
    decode = jax.jit(partial(_decode, n_heads=given.setting.n_heads, n_new=n_new))

    def texts(batch: int, alone: int = 1) -> dict[str, Any]:
        prompts = given.tokens[0, : max(batch, alone), :n_prompt]
        parts = prompts.reshape(-1, batch, n_prompt)
        seconds, tokens = timed(1, lambda: [np.asarray(decode(params, part)) for part in parts])
        return {"seconds": [seconds[0] / alone], "tokens": np.concatenate(tokens[0]).tolist()}

    return {"jax": jax.__version__}, texts


def trainer(given: Workload, attention: str):
    """Return ``update(state, tokens, targets) -> (state, loss)``, compiled, and the first state."""
    settings = dict(OPTIMIZER)
    clip = optax.clip_by_global_norm(settings.pop("max_norm"))
    decayed = partial(jax.tree.map, lambda leaf: leaf.ndim >= 2)
    optimizer = optax.chain(clip, optax.adamw(settings.pop("lr"), **settings, mask=decayed))
    loss_of = partial(loss, n_heads=given.setting.n_heads, attention=ATTENTION[attention])

    @partial(jax.jit, donate_argnums=0)
    def update(state, tokens, targets):
        params, optimizer_state = state
        value, grads = jax.value_and_grad(loss_of)(params, tokens, targets)
        updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), value

    params = parameters(given)
    return update, (params, optimizer.init(params))


def parameters(given: Workload):
    """Return the parameters as a tree of JAX arrays, and forget NumPy's."""
    flat = {name: jnp.asarray(leaf) for name, leaf in given.params.items()}
    given.params.clear()
    blocks = []
    for i in range(given.setting.n_layers):
        names = ("norm1", "qkv", "out", "norm2", "gate_up", "down")
        blocks.append({name: flat[f"blocks.{i}.{name}"] for name in names})
    return {"embedding": flat["embedding"], "blocks": blocks, "norm": flat["norm"]}


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


def _decode(params, prompts, *, n_heads, n_new):
    """Return n_new greedy tokens for each prompt, (B, n_new)."""
    (B, T), D = prompts.shape, params["embedding"].shape[1]
    S, sizes = T + n_new, (3, n_heads, D // n_heads)
    cos, sin = map(jnp.asarray, angles(S, D // n_heads))

    def prefill():
        """Return the cache of the prompts, (B, H, S, K) each, and the next token of each."""
        cache, x = [], params["embedding"][prompts]
        for one in params["blocks"]:

            def attention(q, k, v):
                cache.append([_extended(states, S) for states in (k, v)])
                return manual_attention(q, k, v)

            x = block(one, x, n_heads, cos[:T], sin[:T], attention)
        return cache, jax.vmap(following)(x[:, -1])

    def step(carry, position):
        """Take one token of one text, without an axis for a batch: XLA does vectors faster."""
        cache, token = carry
        x, new_cache = params["embedding"][token], []
        visible = jnp.arange(S) <= position
        for one, (keys, values) in zip(params["blocks"], cache, strict=True):
            q, k, v = (rms_norm(one["norm1"], x) @ one["qkv"]).reshape(sizes)
            q, k = (rotate(states, cos[position], sin[position]) for states in (q, k))
            keys = jax.lax.dynamic_update_index_in_dim(keys, k, position, axis=1)
            values = jax.lax.dynamic_update_index_in_dim(values, v, position, axis=1)
            scores = jnp.einsum("hk,hsk->hs", q * q.shape[-1] ** -0.5, keys)
            probs = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
            x = x + jnp.einsum("hs,hsk->hk", probs, values).reshape(D) @ one["out"]
            gate, up = jnp.split(rms_norm(one["norm2"], x) @ one["gate_up"], 2)
            x = x + (jax.nn.silu(gate) * up) @ one["down"]
            new_cache.append([keys, values])
        return (new_cache, following(x)), token

    def following(x):
        scores = params["embedding"] @ rms_norm(params["norm"], x)
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
