"""GELU, the Gaussian error linear unit (Hendrycks and Gimpel 2016, section 2).

Forward, entry by entry, with Φ the distribution function of N(0, 1):

    y = x·Φ(x)

``approximate`` puts Φ(x) ≈ ½·(1 + tanh u) with u = √(2/π)·(x + 0.044715·x³), as GPT-2 does.

VJP. y' = Φ + x·Φ', where

    exact          Φ' = exp(−x²/2)/√(2π)
    approximate    Φ' = ½·(1 − tanh² u)·u' = 2·Φ·(1 − Φ)·u'      u' = √(2/π)·(1 + 3·0.044715·x²)

    ⇒  d_x = g·(Φ + x·Φ')

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = t_x·(Φ + x·Φ').

Shapes: x and y (...).
"""

import math
from typing import NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_bool,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ...numerics import normal_cdf

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]

_SLOPE = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (...)
    cdf: Array  # (...) Φ(x)
    approximate: bool


init = init_nothing


def forward(params: Tree, x: Array, *, approximate: bool = True) -> tuple[Array, Residuals]:
    """Return x·Φ(x), shape (...)."""
    expect_inputs(params, "", x, "...")
    approximate = expect_bool("approximate", approximate)
    if approximate:
        u = _SLOPE * x * (1.0 + _CUBIC * x**2)
        cdf = 0.5 * (1.0 + np.tanh(u))
    else:
        cdf = normal_cdf(x)
    return x * cdf, Residuals(x, cdf, approximate)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    x, cdf, approximate = residuals
    expect_cotangent(g, x.shape, x.dtype)
    if approximate:
        d_u = _SLOPE * (1.0 + 3 * _CUBIC * x**2)
        density = 2.0 * cdf * (1.0 - cdf) * d_u
    else:
        density = np.exp(-0.5 * x**2) * (1 / math.sqrt(2 * math.pi))
    return {}, g * (cdf + x * density)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    _, t_x = expect_tangent(t, ({}, residuals.x.shape), residuals.x.dtype)
    return vjp(residuals, t_x)[1]  # a diagonal is its own transpose
