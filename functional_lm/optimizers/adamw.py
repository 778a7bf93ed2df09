"""Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019, algorithm 2).

With gradient g, step t = 1, 2, ... and learning rate η:

    m ← β₁·m + (1 − β₁)·g         v ← β₂·v + (1 − β₂)·g²
    m̂ = m/(1 − β₁ᵗ)               v̂ = v/(1 − β₂ᵗ)
    update = −η·(m̂/(√v̂ + ε) + λ·p)

The decay λ·p is left out where the mask says so; by default for everything with fewer than two
axes: the scales of norms, and biases.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from .schedules import Schedule, as_schedule
from .transformation import GradientTransformation


class AdamState(NamedTuple):
    """The state of `adamw`."""

    count: np.int64  # type: ignore[assignment]  # updates made; optax has this name too
    mu: Tree  # first moments, like params
    nu: Tree  # second moments, like params


def decay_matrices(params: Tree) -> Tree:
    """Return the default decay mask: True for leaves with two axes or more."""
    return pytree.map(lambda leaf: leaf.ndim >= 2, params)


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    mask: Callable[[Tree], Tree] = decay_matrices,
) -> GradientTransformation:
    """Return AdamW; arguments and defaults are those of ``optax.adamw``, but for the mask.

    Args:
        learning_rate: η, or a schedule that maps the number of updates made to it.
        b1: β₁, the decay of the first moment.
        b2: β₂, the decay of the second moment.
        eps: ε, added outside of the root.
        weight_decay: λ; the decay of a step is η·λ·p.
        mask: maps params to a tree of booleans, True where λ applies.
    """
    schedule = as_schedule(learning_rate)

    def init(params: Tree) -> AdamState:
        return AdamState(np.int64(0), pytree.zeros_like(params), pytree.zeros_like(params))

    def update(grads: Tree, state: AdamState, params: Tree) -> tuple[Tree, AdamState]:
        mu = pytree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = pytree.map(lambda v, g: b2 * v + (1 - b2) * np.square(g), state.nu, grads)
        count = int(state.count) + 1
        rate = float(schedule(count - 1))
        step_size = -rate / (1 - b1**count)
        root_correction = 1 / math.sqrt(1 - b2**count)

        def one(m: Array, v: Array, p: Array, decays: Any) -> Array:
            denominator = np.sqrt(v)
            denominator *= root_correction
            denominator += eps
            updates = np.divide(m, denominator, out=denominator)
            updates *= step_size
            if decays:
                updates -= (rate * weight_decay) * p
            return updates

        updates = pytree.map(one, mu, nu, params, mask(params))
        return updates, AdamState(np.int64(count), mu, nu)

    return GradientTransformation(init, update)


def adam(
    learning_rate: float | Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    """Return Adam, which is AdamW without decay; arguments and defaults are those of optax."""
    return adamw(learning_rate, b1, b2, eps, weight_decay=0.0)
