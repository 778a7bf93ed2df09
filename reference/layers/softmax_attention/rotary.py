"""Rotary position embedding in JAX (Su et al. 2021, eq. 34)."""

import jax.numpy as jnp
import numpy as np


def forward(params, x, *, positions, theta=10000.0, pairing="interleaved", size=None):
    """Turn the pairs of each head; positions are constants, so their angles are float64."""
    if size is not None:
        first = forward(params, x[..., :size], positions=positions, theta=theta, pairing=pairing)
        return jnp.concatenate([first, x[..., size:]], axis=-1)
    half = x.shape[-1] // 2
    angle = np.multiply.outer(positions, np.power(theta, -np.arange(half) / half))[..., None, :]
    cos, sin = jnp.asarray(np.cos(angle), x.dtype), jnp.asarray(np.sin(angle), x.dtype)
    if pairing == "interleaved":
        x1, x2 = x[..., 0::2], x[..., 1::2]
        return jnp.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], axis=-1).reshape(x.shape)
    cos, sin = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([sin, sin], axis=-1)
    rotated_half = jnp.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    return x * cos + rotated_half * sin
