"""The step size of a state space in JAX."""

import jax


def forward(params, x):
    """Return softplus(x + bias)."""
    return jax.nn.softplus(x + params["bias"])
