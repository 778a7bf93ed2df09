"""A soft cap of logits (Gemma Team 2024, Gemma 2, section 2).

Forward, entry by entry, with a cap c > 0:

    y = c·tanh(x/c)

This is x near zero, and stays between −c and c.

VJP. tanh' = 1 − tanh², and the factors c and 1/c cancel:

    d_x = g·(1 − tanh²(x/c))

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = t_x·(1 − tanh²).

Shapes: x and y (...).
"""

from typing import NamedTuple

import numpy as np

from ..contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_number,
    expect_residuals,
    expect_tangent,
    init_nothing,
)

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    tanh: Array  # (...) tanh(x/c)


init = init_nothing


def forward(params: Tree, x: Array, *, cap: float) -> tuple[Array, Residuals]:
    """Return c·tanh(x/c), shape (...).

    Raises:
        ValueError: for a cap that is not positive.
    """
    expect_inputs(params, "", x, "...")
    cap = expect_number("cap", cap, low=1e-30)
    tanh = np.tanh(x / cap)
    return cap * tanh, Residuals(tanh)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    (tanh,) = residuals
    expect_cotangent(g, tanh.shape, tanh.dtype)
    return {}, g * (1.0 - tanh * tanh)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (tanh,) = residuals
    _, t_x = expect_tangent(t, ({}, tanh.shape), tanh.dtype)
    return t_x * (1.0 - tanh * tanh)
