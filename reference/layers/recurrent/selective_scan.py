"""The selective state space of Mamba 2 in JAX (Dao and Gu 2024), as a recurrence."""

import jax
import jax.numpy as jnp


def forward(params, x, *, chunk_size=None):
    """Run h ← exp(Δ·a)·h + Δ·b·xᵀ and return y = hᵀ·c + D·x with the last h."""
    with_state = type(x)
    (x, dt, b, c), state = x
    repeats = x.shape[2] // b.shape[2]
    b, c = jnp.repeat(b, repeats, axis=2), jnp.repeat(c, repeats, axis=2)
    a = -jnp.exp(params["A_log"])

    def step(h, now):
        x, dt, b, c = now  # (B, H, P), (B, H), (B, H, N), (B, H, N)
        write = jnp.einsum("bh,bhn,bhp->bhnp", dt, b, x)
        h = jnp.exp(dt * a)[..., None, None] * h + write
        return h, jnp.einsum("bhnp,bhn->bhp", h, c) + params["D"][:, None] * x

    state, y = jax.lax.scan(step, state, [part.swapaxes(0, 1) for part in (x, dt, b, c)])
    return with_state(y.swapaxes(0, 1), state)
