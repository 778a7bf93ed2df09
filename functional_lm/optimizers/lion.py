"""Lion (Chen et al. 2023, algorithm 2): the sign of the momentum.

With gradient g and learning rate η:

    update = −η·(sign(β₁·m + (1 − β₁)·g) + λ·p)        m ← β₂·m + (1 − β₂)·g
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree, expect_number
from ..speed.entrywise import entrywise
from .adamw import decay_matrices
from .schedules import Schedule, as_schedule
from .transformation import GradientTransformation, by_entry, expect_gradient

__all__ = ["LionState", "lion"]


class LionState(NamedTuple):
    """The state of `lion`."""

    count: np.int64  # type: ignore[assignment]  # updates made; optax has this name too
    mu: Tree  # momentum, like params


def lion(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
    mask: Callable[[Tree], Tree] | None = decay_matrices,
) -> GradientTransformation:
    """Return Lion; the arguments mean what they mean in ``optax.lion``.

    Only the default of the mask differs: optax decays everything.

    Args:
        learning_rate: η, or a schedule that maps the number of updates made to it; a third to a
            tenth of AdamW's.
        b1: β₁, the share of the momentum in the update.
        b2: β₂, the decay of the momentum.
        weight_decay: λ; the decay of a step is η·λ·p.
        mask: maps params to a tree of booleans, True where λ applies; None decays everything.

    Raises:
        ValueError: for β outside [0, 1) or a negative λ.
    """
    schedule = as_schedule(learning_rate)
    below_one = math.nextafter(1.0, 0.0)
    b1 = expect_number("b1", b1, low=0.0, high=below_one)
    b2 = expect_number("b2", b2, low=0.0, high=below_one)
    weight_decay = expect_number("weight_decay", weight_decay, low=0.0)

    def init(params: Tree) -> LionState:
        return LionState(np.int64(0), pytree.zeros_like(params))

    def update(
        grads: Tree, state: LionState, params: Tree, norm: float | None = None
    ) -> tuple[Tree, LionState]:
        expect_gradient(grads, params)
        rate = float(schedule(int(state.count)))
        decays = pytree.map(lambda leaf: True, params) if mask is None else mask(params)

        def one(p: Array, g: Array, m: Array, decays: Any, update: Array, mu: Array) -> None:
            np.multiply(m, b1, out=update)
            update += g * (1 - b1)
            np.sign(update, out=update)
            update *= -rate
            if decays:
                update -= p * (rate * weight_decay)
            np.multiply(m, b2, out=mu)
            mu += g * (1 - b2)

        updates, mu = entrywise(one, params, grads, state.mu, decays, outputs=2)
        return updates, LionState(np.int64(state.count + 1), mu)

    return GradientTransformation(init, update, by_entry)
