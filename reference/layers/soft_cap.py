"""The soft cap of logits in JAX (Gemma 2)."""

import jax.numpy as jnp


def forward(params, x, *, cap):
    """Return cap·tanh(x/cap)."""
    return cap * jnp.tanh(x / cap)
