"""The gate of a mixture of experts in JAX."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Gates(NamedTuple):
    """The weights of the chosen experts, and the auxiliary loss."""

    weights: Any
    auxiliary: Any


def forward(params, x, *, experts, balance_loss=0.0, z_loss=0.0):
    """Renormalise the probabilities of the chosen; add the balance loss and the z-loss."""
    n_experts = x.shape[-1]
    probs = jax.nn.softmax(x)
    chosen = jnp.take_along_axis(probs, jnp.asarray(experts), axis=-1)
    logits, p = x.reshape(-1, n_experts), probs.reshape(-1, n_experts)
    n = max(len(logits), 1)
    used = jax.nn.one_hot(experts, n_experts, dtype=x.dtype).reshape(-1, n_experts)
    fraction = used.sum(0) / max(len(used), 1)
    balance = n_experts * jnp.sum(fraction * p.sum(0) / n)
    z = jnp.sum(jax.nn.logsumexp(logits, axis=-1) ** 2) / n
    auxiliary = balance_loss * balance + z_loss * z
    return Gates(chosen / chosen.sum(-1, keepdims=True), auxiliary)


def choose(x, *, k):
    """Return the numbers of the k largest logits."""
    return jax.lax.top_k(x, k)[1]
