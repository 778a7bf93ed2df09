"""Root mean square normalisation in JAX (Zhang and Sennrich 2019, eq. 4)."""

import jax.numpy as jnp


def forward(params, x, *, eps=1e-6, offset=0.0):
    """Return x over the root of its mean square, times the scale + offset."""
    rms = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
    return x / rms * (offset + params["scale"])
