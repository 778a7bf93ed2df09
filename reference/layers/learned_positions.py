"""Learned positions in JAX."""

import jax.numpy as jnp


def forward(params, x, *, positions):
    """Add the row of each position to x."""
    return x + jnp.take(params["weight"], positions, axis=0)
