"""Stochastic gradient descent with momentum (Sutskever et al. 2013).

With gradient g, learning rate η and momentum μ:

    t ← g + μ·t        update = −η·t           or, with Nesterov's momentum, −η·(g + μ·t)
"""

from typing import NamedTuple

import numpy as np

from .. import pytree
from ..contract import Tree, expect_number
from .schedules import Schedule, as_schedule
from .transformation import GradientTransformation, by_entry, expect_gradient

__all__ = ["SgdState", "sgd"]


class SgdState(NamedTuple):
    """The state of `sgd`."""

    count: np.int64  # type: ignore[assignment]  # updates made; optax has this name too
    trace: Tree  # the momentum, like params; () without one


def sgd(
    learning_rate: float | Schedule, momentum: float | None = None, nesterov: bool = False
) -> GradientTransformation:
    """Return gradient descent; arguments and defaults are those of ``optax.sgd``.

    Args:
        learning_rate: η, or a schedule that maps the number of updates made to it.
        momentum: μ. Default: plain gradient descent, which keeps no state.
        nesterov: look ahead along the momentum.

    Raises:
        ValueError: for a momentum outside [0, 1], or nesterov without momentum.
    """
    schedule = as_schedule(learning_rate)
    if momentum is not None:
        momentum = expect_number("momentum", momentum, low=0.0, high=1.0)
    elif nesterov:
        raise ValueError("nesterov needs a momentum: got None; pass momentum=0.9")

    def init(params: Tree) -> SgdState:
        return SgdState(np.int64(0), () if momentum is None else pytree.zeros_like(params))

    def update(
        grads: Tree, state: SgdState, params: Tree, norm: float | None = None
    ) -> tuple[Tree, SgdState]:
        expect_gradient(grads, params)
        rate = float(schedule(int(state.count)))
        count = np.int64(state.count + 1)
        if momentum is None:
            return pytree.map(lambda g: -rate * g, grads), SgdState(count, ())
        trace = pytree.map(lambda g, t: g + momentum * t, grads, state.trace)
        step = pytree.map(lambda g, t: g + momentum * t, grads, trace) if nesterov else trace
        return pytree.map(lambda t: -rate * t, step), SgdState(count, trace)

    return GradientTransformation(init, update, by_entry)
