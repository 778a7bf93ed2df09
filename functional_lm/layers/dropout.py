"""Dropout (Srivastava et al. 2014), scaled at training time.

Forward. A mask m of zeros and ones, each one with probability 1 − rate, drawn from the key:

    y = x·m/(1 − rate)

VJP. The map is linear with a diagonal Jacobian, so it is its own transpose:

    d_x = g·m/(1 − rate)

Without a key, or at rate 0, nothing is drawn and the layer is the identity: ``y`` is ``x`` itself
and ``d_x`` is ``g`` itself, not copies. At rate 1 both are zero.

JVP. The Jacobian is diagonal, so it is its own transpose: t_y = t_x·m/(1 − rate).

Shapes: x and y (...).
"""

from typing import NamedTuple

from ..contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_number,
    expect_residuals,
    expect_tangent,
    init_nothing,
)
from ..prng import bernoulli, expect_key

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]

SHARES_MEMORY = "without a key, or at rate 0, y is x itself and d_x is g itself"


class Residuals(NamedTuple):
    """What `vjp` needs."""

    multiplier: Array | None  # (...) m/(1 − rate), or None for the identity
    x: Array  # (...), for its shape and dtype


init = init_nothing


def forward(
    params: Tree, x: Array, *, rate: float, key: Key | None = None
) -> tuple[Array, Residuals]:
    """Return x with about ``rate`` of its entries dropped and the others scaled up; shape (...).

    Raises:
        TypeError: for a key that is not a tuple of ints.
        ValueError: for a rate outside [0, 1].
    """
    expect_inputs(params, "", x, "...")
    rate = expect_number("rate", rate, low=0.0, high=1.0)
    if key is not None:
        expect_key(key)
    if key is None or rate == 0.0:
        return x, Residuals(None, x)
    kept = bernoulli(key, x.shape, p=1.0 - rate)
    multiplier = kept.astype(x.dtype) * (1.0 / (1.0 - rate) if rate < 1.0 else 0.0)
    return x * multiplier, Residuals(multiplier, x)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangent g (...)."""
    expect_residuals(residuals, Residuals)
    multiplier, x = residuals
    expect_cotangent(g, x.shape, x.dtype)
    return {}, g if multiplier is None else g * multiplier


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (...) for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    multiplier, x = residuals
    _, t_x = expect_tangent(t, ({}, x.shape), x.dtype)
    return t_x if multiplier is None else t_x * multiplier
