"""Adafactor (Shazeer and Stern 2018, algorithms 4 and 5): Adam without its memory.

With gradient G of a matrix P, step t = 1, 2, ... and learning rate η:

    β = 1 − t^−c
    R ← β·R + (1 − β)·(row means of G² + ε)        C ← β·C + (1 − β)·(column means of G² + ε)
    U = G/√(R·Cᵀ/mean(R))
    update = −η·max(rms(P), 10⁻³)·U/max(1, rms(U)/d)

R and C stand for the mean square of each entry. A leaf without two axes that are long enough has
one for each entry, as in Adam.
"""

import math
from typing import NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree, expect_int, expect_number
from .schedules import Schedule, as_schedule
from .transformation import GradientTransformation, expect_gradient

__all__ = ["AdafactorState", "adafactor"]

SMALLEST = 1e-3  # the least size of a leaf that its updates are relative to


class AdafactorState(NamedTuple):
    """The state of `adafactor`."""

    count: np.int64  # type: ignore[assignment]  # updates made; optax has this name too
    nu: Tree  # for each leaf its mean squares, or [R, C], their means over two axes
    trace: Tree  # averages of the updates, like params; () without momentum


def adafactor(
    learning_rate: float | Schedule,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float = 1.0,
    momentum: float | None = None,
    eps: float = 1e-30,
) -> GradientTransformation:
    """Return Adafactor; arguments and defaults are those of ``optax.adafactor``.

    Args:
        learning_rate: η, or a schedule that maps the number of updates made to it.
        min_dim_size_to_factor: the least size of both axes whose means stand for the entries.
        decay_rate: c.
        multiply_by_parameter_scale: make updates relative to the root mean square of a leaf.
        clipping_threshold: d, the largest root mean square of U.
        momentum: μ; the update is an average, μ·average + (1 − μ)·update. Default: none.
        eps: ε.

    Raises:
        ValueError: for an argument out of range.
    """
    schedule = as_schedule(learning_rate)
    least = expect_int("min_dim_size_to_factor", min_dim_size_to_factor)
    decay_rate = expect_number("decay_rate", decay_rate, low=0.0, high=1.0)
    clipping_threshold = expect_number("clipping_threshold", clipping_threshold, low=1e-9)
    eps = expect_number("eps", eps, low=0.0)
    if momentum is not None:
        momentum = expect_number("momentum", momentum, low=0.0, high=math.nextafter(1.0, 0.0))

    def init(params: Tree) -> AdafactorState:
        def one(p: Array) -> Tree:
            axes = _factored(p.shape, least)
            return [np.zeros_like(p.sum(axis)) for axis in axes] if axes else np.zeros_like(p)

        trace = () if momentum is None else pytree.zeros_like(params)
        return AdafactorState(np.int64(0), pytree.map(one, params), trace)

    def update(
        grads: Tree, state: AdafactorState, params: Tree, norm: float | None = None
    ) -> tuple[Tree, AdafactorState]:
        expect_gradient(grads, params)
        count = int(state.count) + 1
        rate, beta = float(schedule(count - 1)), 1 - count**-decay_rate

        def mean_squares(g: Array, nu: Tree) -> Tree:
            squares = np.square(g) + eps
            axes = _factored(g.shape, least)
            if not axes:
                return beta * nu + (1 - beta) * squares
            pairs = zip(axes, nu, strict=True)
            return [beta * old + (1 - beta) * squares.mean(axis) for axis, old in pairs]

        def one(p: Array, g: Array, nu: Tree) -> Array:
            if axes := _factored(g.shape, least):
                rows, columns = map(np.expand_dims, nu, axes)
                u = g * (rows / rows.mean(axes[1], keepdims=True)) ** -0.5 * columns**-0.5
            else:
                u = g * nu**-0.5
            scale = rate / max(1.0, _rms(u) / clipping_threshold)
            if multiply_by_parameter_scale:
                scale *= max(_rms(p), SMALLEST)
            return u * -scale

        nu = pytree.map(mean_squares, grads, state.nu)
        updates, trace = pytree.map(one, params, grads, nu), state.trace
        if momentum is not None:
            updates = trace = pytree.map(
                lambda t, u: momentum * t + (1 - momentum) * u, trace, updates
            )
        return updates, AdafactorState(np.int64(count), nu, trace)

    return GradientTransformation(init, update)


def _factored(shape: tuple[int, ...], least: int) -> list[int]:
    """Return the longest axis and the second, if both are long enough."""
    if len(shape) < 2:
        return []
    second, first = np.argsort(shape)[-2:].tolist()
    return [first, second] if shape[second] >= least else []


def _rms(x: Array) -> float:
    return math.sqrt(float(np.square(x).mean()))
