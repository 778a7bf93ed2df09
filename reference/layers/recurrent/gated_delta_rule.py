"""The gated delta rule in JAX (Yang et al. 2024, eq. 10), position by position."""

import jax
import jax.numpy as jnp


def forward(params, x, *, chunk_size=32):
    """Return oₜ = Sₜᵀ·qₜ with Sₜ = αₜ·(I − βₜ·kₜ·kₜᵀ)·Sₜ₋₁ + βₜ·kₜ·vₜᵀ."""

    def step(state, inputs):
        q, k, v, beta, log_decay = inputs
        erase = jnp.eye(k.shape[-1]) - beta[..., None, None] * k[..., :, None] * k[..., None, :]
        write = beta[..., None, None] * k[..., :, None] * v[..., None, :]
        state = jnp.exp(log_decay)[..., None, None] * erase @ state + write
        return state, jnp.einsum("bhkv,bhk->bhv", state, q)

    by_time = [part.swapaxes(0, 1) for part in x.x]
    state, y = jax.lax.scan(step, x.state, by_time)
    return x._replace(x=y.swapaxes(0, 1), state=state)
