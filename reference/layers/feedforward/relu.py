"""ReLU in JAX."""

import jax


def forward(params, x):
    """Return jax.nn's relu."""
    return jax.nn.relu(x)
