"""Causal linear attention in JAX (Katharopoulos et al. 2020), position by position."""

import jax
import jax.numpy as jnp


def forward(params, x, *, chunk_size=32):
    """Return oₜ = Sₜᵀ·qₜ/√K with Sₜ = Sₜ₋₁ + kₜ·vₜᵀ."""

    def step(state, inputs):
        q, k, v = inputs
        state = state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bhkv,bhk->bhv", state, q) / jnp.sqrt(q.shape[-1]).astype(q.dtype)

    by_time = [part.swapaxes(0, 1) for part in x.x]
    state, y = jax.lax.scan(step, x.state, by_time)
    return x._replace(x=y.swapaxes(0, 1), state=state)
