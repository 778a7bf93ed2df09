"""A gate with any activation φ: the GLU family (Shazeer 2020, eq. 5 and 6).

Forward, for each row x (2F), whose halves are the gate a and the value u:

    y = φ(a)·u

With φ = silu this is SwiGLU, with gelu GEGLU, with relu ReGLU; `swiglu` computes the first of them
faster.

VJP. A product gives each factor the cotangent times the other:

    d_φ = g·u  ⇒  d_a from the vjp of φ        d_u = g·φ(a)

JVP. The product rule: t_y = t_φ·u + φ(a)·t_u, with t_φ from the jvp of φ.

Shapes: x (..., 2F), y (..., F). The matrices around it belong to `models.mlp`.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Layer,
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

    inner: Any  # of the activation
    phi: Array  # (..., F) φ(a)
    u: Array  # (..., F)
    activation: Layer


init = init_nothing


def forward(params: Tree, x: Array, *, activation: Layer) -> tuple[Array, Residuals]:
    """Return φ of the first half of each row, times the second half; shape (..., F).

    Args:
        params: ``{}``.
        x: (..., 2F), gate and value.
        activation: φ, a layer without parameters.

    Raises:
        ValueError: for rows of odd size.
    """
    expect_inputs(params, "", x, "... 2F")
    if x.shape[-1] % 2:
        raise ValueError(
            f"x must have rows of even size, gate and value: got {x.shape[-1]}; pass 2·F"
        )
    half = x.shape[-1] // 2
    a, u = x[..., :half], x[..., half:]
    phi, inner = activation.forward({}, a)
    return phi * u, Residuals(inner, phi, u, activation)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (..., F)."""
    expect_residuals(residuals, Residuals)
    inner, phi, u, activation = residuals
    expect_cotangent(g, phi.shape, phi.dtype)
    _, d_a = activation.vjp(inner, g * u)
    return {}, np.concatenate([d_a, g * phi], axis=-1)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., F) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    inner, phi, u, activation = residuals
    _, t_x = expect_tangent(t, ({}, (*phi.shape[:-1], 2 * phi.shape[-1])), phi.dtype)
    t_a, t_u = np.split(t_x, 2, axis=-1)
    return activation.jvp(inner, ({}, t_a)) * u + phi * t_u
