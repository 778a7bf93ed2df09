"""Rotary positions (Su et al. 2021, section 3.4.2): the angles, and pairs turned by them.

A head of even size K holds K/2 pairs (x₁, x₂). ``"interleaved"`` pairs neighbours (0, 1), (2, 3),
...: then a pair is one complex number x₁ + i·x₂, and a rotation by φ is one complex multiplication
by e^{iφ}. ``"half"`` pairs entry i with entry i + K/2, as Hugging Face's Llama does.
"""

from typing import Any

import numpy as np

from .contract import Array, expect_choice, expect_number

__all__ = ["expect_rotary", "rotations", "turn"]

PAIRINGS = ("interleaved", "half")


def expect_rotary(
    positions: Any, leading: tuple[int, ...], head_size: int, theta: Any, pairing: Any
) -> float:
    """Check the settings of rotary positions; return theta.

    Args:
        positions: numbers, (T,) or of the shape ``leading``.
        leading: (..., T) of the heads.
        head_size: K.
        theta: the base of the wavelengths.
        pairing: one of `PAIRINGS`.

    Raises:
        TypeError: for positions that are not numbers.
        ValueError: for an odd K, positions of another shape, theta ≤ 0, an unknown pairing.
    """
    if head_size % 2:
        raise ValueError(
            f"rotary needs an even head size: got K={head_size}; try {head_size - 1 or 2} "
            f"or {head_size + 1}"
        )
    expect_choice("pairing", pairing, PAIRINGS)
    if not isinstance(positions, np.ndarray) or positions.dtype.kind not in "iuf":
        received = getattr(positions, "dtype", type(positions).__name__)
        raise TypeError(f"positions must be an array of numbers: got {received}; pass np.arange(T)")
    if positions.shape not in (leading[-1:], leading):
        raise ValueError(
            f"positions must have shape (T,) or (..., T) = {leading}: "
            f"got {positions.shape}; pass one position for each token"
        )
    return expect_number("theta", theta, low=1e-30)


def rotations(positions: Array, head_size: int, theta: float, dtype: Any) -> Array:
    """Return e^{iφ} with φ = position·theta^(−2i/K) for pair i, shape (..., T, 1, K/2).

    Angles are computed in float64 and rounded once: at position 10⁵ a float32 angle is off by 4e-3.

    Args:
        positions: (..., T), in tokens.
        head_size: K.
        theta: the base of the wavelengths, which are 2π to 2π·theta tokens.
        dtype: float32 or float64; the result is complex64 or complex128 to match.
    """
    frequency = theta ** (np.arange(0, head_size, 2) / -head_size)  # (K/2,) float64
    angle = positions[..., None, None] * frequency  # (..., T, 1, K/2)
    return np.exp(1j * angle).astype(np.result_type(dtype, np.complex64))


def turn(x: Array, rotation: Array, pairing: str, out: Array) -> Array:
    """Write the pairs of x (..., K), each multiplied by its rotation (..., K/2), to ``out``.

    The last axis of both must be contiguous; ``out`` may be x itself.
    """
    if pairing == "interleaved":
        complex_dtype = rotation.dtype
        np.multiply(x.view(complex_dtype), rotation, out=out.view(complex_dtype))
        return out
    x1, x2 = np.split(x, 2, axis=-1)
    y1, y2 = np.split(out, 2, axis=-1)
    cos, sin = rotation.real, rotation.imag
    lower = x1 * cos - x2 * sin
    np.add(x1 * sin, x2 * cos, out=y2)
    y1[...] = lower
    return out
