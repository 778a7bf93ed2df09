"""The square of ReLU (So et al. 2021, "Primer", section 4.1).

Forward, entry by entry: y = max(x, 0)²

VJP. y' is 2x above zero and zero elsewhere, that is

    d_x = 2·g·max(x, 0)

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = 2·t_x·max(x, 0).

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

    relu: Array  # (...) max(x, 0)


init = init_nothing


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return max(x, 0)², shape (...)."""
    expect_inputs(params, "", x, "...")
    relu = np.maximum(x, 0.0)
    return relu * relu, Residuals(relu)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    (relu,) = residuals
    expect_cotangent(g, relu.shape, relu.dtype)
    return {}, 2.0 * g * relu


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (relu,) = residuals
    _, t_x = expect_tangent(t, ({}, relu.shape), relu.dtype)
    return 2.0 * t_x * relu
