"""Softmax in JAX."""

import jax


def forward(params, x):
    """Return jax.nn's softmax of the last axis."""
    return jax.nn.softmax(x, axis=-1)
