"""SwiGLU, the gate, in JAX."""

import jax
import jax.numpy as jnp


def forward(params, x):
    """Return silu(a)·u of the halves a and u of each row."""
    gate, up = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * up
