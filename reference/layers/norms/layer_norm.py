"""Layer normalisation in JAX (Ba, Kiros and Hinton 2016, section 3.1)."""

import jax.numpy as jnp


def forward(params, x, *, eps=1e-5):
    """Return x less its mean, over its standard deviation, times the scale, plus the bias."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.var(x, axis=-1, keepdims=True)
    y = (x - mean) / jnp.sqrt(variance + eps) * params["scale"]
    return y + params["bias"] if "bias" in params else y
