"""Dropout in JAX, with the mask that the key determines."""

import jax.numpy as jnp
import numpy as np


def forward(params, x, *, rate, key=None):
    """Keep an entry where the key's uniform float32 draw lies below 1 − rate, and scale it up."""
    if key is None or rate == 0:
        return x
    sequence = np.random.SeedSequence(key[0], spawn_key=key[1:])
    draws = np.random.Generator(np.random.PCG64(sequence)).random(x.shape, dtype=np.float32)
    return jnp.where(draws < 1 - rate, x / max(1 - rate, 1e-30), 0)
