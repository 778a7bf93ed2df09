"""Learned positions, ``y = x + W[positions]``: a row is added for the place of each token
(Gehring et al. 2017, section 3.1).

Forward: yₙ = xₙ + W[pₙ] with weight W (M, D) and integer positions p below M.

VJP. y is a sum, and row m of W is used wherever the position is m, so the cotangents add:

    d_x = g      ∂L/∂W[m] = Σₙ gₙ·[pₙ = m]

JVP. The map is linear: t_y = t_x + t_W[positions].

Shapes: x and y (..., T, D); positions (T,), or (..., T) with the leading axes of x.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_sizes,
    expect_tangent,
    expect_tokens,
)
from ..numerics import rows, segment_sum
from ..prng import normal

__all__ = ["Residuals", "expect_positions", "forward", "init", "jvp", "vjp"]

SHARES_MEMORY = "d_x is g itself"


class Residuals(NamedTuple):
    """What `vjp` needs."""

    positions: Array  # (T,) or (..., T) integers
    weight: Array  # (M, D), for its shape and dtype
    shape: tuple[int, ...]  # of x


def init(key: Key | None, *, max_seq_len: int, d_model: int, dtype: Any = np.float32) -> Tree:
    """Draw the rows from N(0, 0.01²), as GPT-2 does."""
    shape = expect_sizes(max_seq_len=max_seq_len, d_model=d_model)
    return {"weight": normal(key, shape, scale=0.01, dtype=dtype)}


def forward(params: Tree, x: Array, *, positions: Array) -> tuple[Array, Residuals]:
    """Return ``x + weight[positions]``, shape (..., T, D).

    Raises:
        TypeError: for positions that are not integers.
        ValueError: for positions of another shape, or outside ``[0, M)``.
    """
    expect_inputs(params, "weight: M D", x, "... T D")
    weight = params["weight"]
    expect_positions(positions, len(weight), x.shape[:-1])
    return x + weight[positions], Residuals(positions, weight, x.shape)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"weight"}, d_x)`` for the cotangent g (..., T, D)."""
    expect_residuals(residuals, Residuals)
    positions, weight, shape = residuals
    expect_cotangent(g, shape, weight.dtype)
    each = np.broadcast_to(positions, shape[:-1]).ravel()  # (N,)
    d_weight = segment_sum(rows(g), each, len(weight))  # (M, D)
    return {"weight": d_weight}, g


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (..., T, D) for the tangents ``({"weight"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    positions, weight, shape = residuals
    t_params, t_x = expect_tangent(t, ({"weight": weight.shape}, shape), weight.dtype)
    return t_x + t_params["weight"][positions]


def expect_positions(positions: Any, n_positions: int, leading: tuple[int, ...]) -> None:
    """Require integers in ``[0, n_positions)``, of shape (T,) or ``leading``, that is (..., T).

    Raises:
        TypeError: for anything but an array of integers.
        ValueError: for another shape, or naming the first position out of range.
    """
    shape = getattr(positions, "shape", None)
    if shape is not None and shape not in (leading[-1:], leading):
        raise ValueError(
            f"positions must have the shape {leading[-1:]} or {leading}: got {shape}; "
            "pass np.arange(T)"
        )
    try:
        expect_tokens("positions", positions, n_positions)
    except ValueError as error:
        raise ValueError(
            f"{str(error).rpartition(';')[0]}; shorten the text, or raise max_seq_len"
        ) from None
