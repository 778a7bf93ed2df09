"""ReLU, the rectified linear unit (Nair and Hinton 2010).

Forward, entry by entry: y = max(x, 0)

VJP. y' is one above zero and zero below. At zero, where there is no derivative, it is zero, as in
every framework:

    d_x = g·[x > 0]

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = t_x·[x > 0].

Shapes: x and y (...).
"""

from typing import NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_tangent,
    init_nothing,
)

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (...)


init = init_nothing


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return max(x, 0), shape (...)."""
    expect_inputs(params, "", x, "...")
    return np.maximum(x, 0.0), Residuals(x)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    (x,) = residuals
    expect_cotangent(g, x.shape, x.dtype)
    return {}, g * (x > 0.0)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (x,) = residuals
    _, t_x = expect_tangent(t, ({}, x.shape), x.dtype)
    return t_x * (x > 0.0)
