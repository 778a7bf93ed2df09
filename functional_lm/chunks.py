"""What layers with a memory share: texts in chunks, decays within one, and padding."""

import numpy as np

from .contract import Array, expect_int

__all__ = ["decays", "decays_jvp", "decays_vjp", "join", "split", "without_padding"]


def split(x: Array, chunk_size: int) -> Array:
    """Cut (B, T, H, K) into n chunks (n, B, H, C, K) of equal length C ≤ chunk_size.

    The last one is filled up with zeros. As few chunks as there can be, and as short as they then
    can be: 65 positions in chunks of 64 become twice 33.

    Derivative: `join`.
    """
    B, T, H, K = x.shape
    n = max(-(-T // expect_int("chunk_size", chunk_size)), 1)
    C = max(-(-T // n), 1)
    if n * C > T:
        x = np.concatenate([x, np.zeros((B, n * C - T, H, K), x.dtype)], axis=1)
    return np.ascontiguousarray(x.reshape(B, n, C, H, K).transpose(1, 0, 3, 2, 4))


def join(chunks: Array, length: int) -> Array:
    """Undo `split`: (n, B, H, C, K) to (B, T, H, K)."""
    n, B, H, C, K = chunks.shape
    x = chunks.transpose(1, 0, 3, 2, 4).reshape(B, n * C, H, K)
    return np.ascontiguousarray(x[:, :length])


def without_padding(x: Array, lengths: Array) -> Array:
    """Return x (B, T, ...) with zeros from each text's length on: a memory does not see them."""
    real = np.arange(x.shape[1]) < lengths[:, None]
    return x * real.reshape(real.shape + (1,) * (x.ndim - 2))


def decays(log_decay: Array) -> Array:
    """Return what is left at each position t of what was there after s: (..., C, 1+C).

    Lₜₛ = exp(Σ gᵣ over s < r ≤ t) for s ≤ t and 0 above, where g (..., C, 1) is the log decay at
    each position, t = 1 ... C, and s = 0 is the start of the chunk. Each exponent is summed as it
    stands: differences of cumulative sums would lose the small ones behind a strong decay.
    """
    C, dtype = log_decay.shape[-2], log_decay.dtype
    exponents = np.tri(C, dtype=dtype) @ (log_decay * np.tri(C, 1 + C, dtype=dtype))
    return np.exp(exponents) * np.tri(C, 1 + C, 1, dtype)


def decays_vjp(left: Array, g: Array) -> Array:
    """Return the cotangent (..., C, 1) of the log decays from which `decays` made ``left``.

    gᵣ occurs in each Lₜₛ with s < r ≤ t  ⇒  d_gᵣ = Σ g_Lₜₛ·Lₜₛ over s < r ≤ t
    """
    C = left.shape[-2]
    inside = np.tri(C, dtype=g.dtype).T @ (g * left)  # summed over t ≥ r
    return np.asarray((inside * np.tri(C, 1 + C, dtype=g.dtype)).sum(axis=-1, keepdims=True))


def decays_jvp(left: Array, t: Array) -> Array:
    """Return the tangent (..., C, 1+C) of what `decays` returned, for that of the log decays.

    t_Lₜₛ = Lₜₛ·Σ t_gᵣ over s < r ≤ t
    """
    C, dtype = t.shape[-2], t.dtype
    return left * (np.tri(C, dtype=dtype) @ (t * np.tri(C, 1 + C, dtype=dtype)))
