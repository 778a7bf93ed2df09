"""Unembedding in JAX."""

import jax.numpy as jnp


def forward(params, x, *, soft_cap=None):
    """Return the inner product of x with the row of every token, softly capped if asked for."""
    logits = jnp.einsum("...d,vd->...v", x, params["weight"])
    return logits if soft_cap is None else soft_cap * jnp.tanh(logits / soft_cap)
