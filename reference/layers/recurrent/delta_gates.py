"""The gates of a gated delta rule in JAX."""

import jax
import jax.numpy as jnp


def forward(params, x):
    """Return σ(b) and −exp(A_log)·softplus(a + bias)."""
    b, a = x
    log_decay = -jnp.exp(params["A_log"]) * jax.nn.softplus(a + params["bias"])
    return x._replace(beta=jax.nn.sigmoid(b), log_decay=log_decay)
