"""Rotary position embedding (Su et al. 2021, section 3.4.2).

Forward. A head of even size K holds K/2 pairs (x₁, x₂); pair i at position p turns by the angle
φ = p·theta^(−2i/K):

    y₁ = x₁·cos φ − x₂·sin φ        y₂ = x₁·sin φ + x₂·cos φ

``pairing="interleaved"`` pairs neighbours (0, 1), (2, 3), ...: then a pair is one complex number
x₁ + i·x₂ and the rotation one complex multiplication by e^{iφ}. ``pairing="half"`` pairs entry i
with entry i + K/2, as Hugging Face's Llama does.

VJP. A rotation is orthogonal, so its transpose is the rotation by −φ:

    d_x = g turned by −φ, the multiplication by the conjugate e^{−iφ}

Shapes: x and y (..., T, H, K); positions (T,), or (..., T) with the leading axes of x.
Angles are computed in float64 and rounded once: at position 10⁵ a float32 angle is off by 4e-3.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_choice,
    expect_cotangent,
    expect_dtype,
    expect_floating,
    expect_number,
    expect_params,
    expect_shape,
)

PAIRINGS = ("interleaved", "half")


class Residuals(NamedTuple):
    """What `vjp` needs."""

    rotation: Array  # (..., T, 1, K/2) complex: e^{iφ}
    pairing: str
    shape: tuple[int, ...]  # of x


def init(key: Key = (), *, dtype: Any = np.float32) -> Tree:
    """Return ``{}``: this layer has no parameters."""
    expect_dtype(dtype)
    return {}


def forward(
    params: Tree,
    x: Array,
    *,
    positions: Array,
    theta: float = 10000.0,
    pairing: str = "interleaved",
) -> tuple[Array, Residuals]:
    """Return each pair turned by its angle; shape (..., T, H, K).

    Args:
        params: ``{}``.
        x: queries or keys.
        positions: integers or floats, in tokens.
        theta: the base of the wavelengths, 2π to 2π·theta tokens.
        pairing: ``"interleaved"`` or ``"half"``.

    Raises:
        TypeError: for an x that is not float32 or float64, or positions that are no numbers.
        ValueError: for an odd K, positions of another shape, theta ≤ 0, an unknown pairing.
    """
    expect_params(params)
    expect_floating(x=x)
    _, _, head_size = expect_shape("x", x, "... T H K")
    if head_size % 2:
        raise ValueError(
            f"rotary needs an even head size: got K={head_size}; try {head_size - 1 or 2} "
            f"or {head_size + 1}"
        )
    expect_choice("pairing", pairing, PAIRINGS)
    rotation = _rotation(x, positions, expect_number("theta", theta, low=1e-30))
    return _rotate(x, rotation, pairing), Residuals(rotation, pairing, x.shape)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (..., T, H, K)."""
    rotation, pairing, shape = residuals
    expect_cotangent(g, shape, rotation.real.dtype)
    return {}, _rotate(g, rotation.conj(), pairing)


def _rotation(x: Array, positions: Array, theta: float) -> Array:
    """Return e^{iφ} (..., T, 1, K/2), complex64 or complex128 to match x."""
    if not isinstance(positions, np.ndarray) or positions.dtype.kind not in "iuf":
        received = getattr(positions, "dtype", type(positions).__name__)
        raise TypeError(f"positions must be an array of numbers: got {received}; pass np.arange(T)")
    if positions.shape not in ((x.shape[-3],), x.shape[:-2]):
        raise ValueError(
            f"positions must have shape (T,) or (..., T) = {x.shape[:-2]}: "
            f"got {positions.shape}; pass one position for each token"
        )
    head_size = x.shape[-1]
    frequency = theta ** (np.arange(0, head_size, 2) / -head_size)  # (K/2,) float64
    angle = positions[..., None, None] * frequency  # (..., T, 1, K/2)
    return np.exp(1j * angle).astype(np.result_type(x.dtype, np.complex64))


def _rotate(x: Array, rotation: Array, pairing: str) -> Array:
    if pairing == "interleaved":
        pairs = np.ascontiguousarray(x).view(rotation.dtype)  # (..., T, H, K/2) complex
        return (pairs * rotation).view(x.dtype)
    x1, x2 = np.split(x, 2, axis=-1)
    cos, sin = rotation.real, rotation.imag
    return np.concatenate([x1 * cos - x2 * sin, x1 * sin + x2 * cos], axis=-1)
