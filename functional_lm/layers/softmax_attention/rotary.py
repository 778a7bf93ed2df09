"""Rotary position embedding (Su et al. 2021, section 3.4.2).

Forward. A head of even size K holds K/2 pairs (x₁, x₂); pair i at position p turns by the angle
φ = p·theta^(−2i/K):

    y₁ = x₁·cos φ − x₂·sin φ        y₂ = x₁·sin φ + x₂·cos φ

``pairing="interleaved"`` pairs neighbours (0, 1), (2, 3), ...: then a pair is one complex number
x₁ + i·x₂ and the rotation one complex multiplication by e^{iφ}. ``pairing="half"`` pairs entry i
with entry i + K/2, as Hugging Face's Llama does.

With a ``size`` below K, only the first so many entries turn, as in GPT-NeoX (Black et al. 2022,
section 2.1): they are a head of that size, and the others pass unchanged.

VJP. A rotation is orthogonal, so its transpose is the rotation by −φ:

    d_x = g turned by −φ, the multiplication by the conjugate e^{−iφ}

and the cotangent of an entry that passes is g.

JVP. The map is linear: t_y is t_x turned by φ.

Shapes: x and y (..., T, H, K); positions (T,), or (..., T) with the leading axes of x.
Angles are computed in float64 and rounded once: at position 10⁵ a float32 angle is off by 4e-3.
"""

from typing import NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_int,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ...rotation import PAIRINGS as PAIRINGS
from ...rotation import expect_rotary, rotations, turn

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    rotation: Array  # (..., T, 1, size/2) complex: e^{iφ}
    pairing: str
    shape: tuple[int, ...]  # of x


init = init_nothing


def forward(
    params: Tree,
    x: Array,
    *,
    positions: Array,
    theta: float = 10000.0,
    pairing: str = "interleaved",
    size: int | None = None,
) -> tuple[Array, Residuals]:
    """Return each pair turned by its angle; shape (..., T, H, K).

    Args:
        params: ``{}``.
        x: queries or keys.
        positions: integers or floats, counted in tokens.
        theta: the base of the wavelengths, 2π to 2π·theta tokens.
        pairing: ``"interleaved"`` or ``"half"``.
        size: how many entries of a head turn, an even number; all K if not given.

    Raises:
        TypeError: for positions that are not numbers.
        ValueError: for an odd size, one above K, positions of another shape, theta ≤ 0, an unknown
            pairing.
    """
    expect_inputs(params, "", x, "... T H K")
    K = x.shape[-1]
    size = K if size is None else expect_int("size", size, maximum=K)
    theta = expect_rotary(positions, x.shape[:-2], size, theta, pairing)
    rotation = rotations(positions, size, theta, x.dtype)
    return _turn_first(x, rotation, pairing), Residuals(rotation, pairing, x.shape)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (..., T, H, K)."""
    expect_residuals(residuals, Residuals)
    rotation, pairing, shape = residuals
    expect_cotangent(g, shape, rotation.real.dtype)
    return {}, _turn_first(g, rotation.conj(), pairing)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., T, H, K) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    rotation, pairing, shape = residuals
    _, t_x = expect_tangent(t, ({}, shape), rotation.real.dtype)
    return _turn_first(t_x, rotation, pairing)


def _turn_first(x: Array, rotation: Array, pairing: str) -> Array:
    """Return a copy of x whose first entries are turned, two for each rotation."""
    size = 2 * rotation.shape[-1]
    y = np.array(x, order="C")
    turn(y[..., :size], rotation, pairing, y[..., :size])
    return y
