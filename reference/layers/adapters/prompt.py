"""Learned rows in front of a text, in JAX."""

import jax
import jax.numpy as jnp


def forward(params, x):
    """Return each text with the same rows in front of it."""
    return jax.vmap(lambda text: jnp.concatenate([params["weight"], text]))(x)
