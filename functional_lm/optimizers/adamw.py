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
from ..contract import Array, Tree, expect_number
from ..speed.entrywise import entrywise
from .schedules import Schedule, as_schedule
from .transformation import GradientTransformation, by_entry, expect_gradient

__all__ = ["AdamState", "adam", "adamw", "decay_matrices"]


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
    mask: Callable[[Tree], Tree] | None = decay_matrices,
) -> GradientTransformation:
    """Return AdamW; the arguments mean what they mean in ``optax.adamw``.

    Only the default of the mask differs: optax decays everything.

    Args:
        learning_rate: η, or a schedule that maps the number of updates made to it.
        b1: β₁, the decay of the first moment.
        b2: β₂, the decay of the second moment.
        eps: ε, added outside of the root.
        weight_decay: λ; the decay of a step is η·λ·p.
        mask: maps params to a tree of booleans, True where λ applies; None decays everything.

    Raises:
        ValueError: for β outside [0, 1), a negative ε or λ.
    """
    schedule = as_schedule(learning_rate)
    below_one = math.nextafter(1.0, 0.0)
    b1 = expect_number("b1", b1, low=0.0, high=below_one)
    b2 = expect_number("b2", b2, low=0.0, high=below_one)
    eps = expect_number("eps", eps, low=0.0)
    weight_decay = expect_number("weight_decay", weight_decay, low=0.0)

    def init(params: Tree) -> AdamState:
        return AdamState(np.int64(0), pytree.zeros_like(params), pytree.zeros_like(params))

    def update(
        grads: Tree, state: AdamState, params: Tree, norm: float | None = None
    ) -> tuple[Tree, AdamState]:
        expect_gradient(grads, params)
        count = int(state.count) + 1
        rate = float(schedule(count - 1))
        step_size = -rate / (1 - b1**count)
        root_correction = 1 / math.sqrt(1 - b2**count)
        decays = pytree.map(lambda leaf: True, params) if mask is None else mask(params)

        def one(
            p: Array, g: Array, m: Array, v: Array, decays: Any, update: Array, mu: Array, nu: Array
        ) -> None:
            scratch = np.multiply(g, 1 - b1, out=update)
            np.multiply(m, b1, out=mu)
            mu += scratch
            np.square(g, out=scratch)
            scratch *= 1 - b2
            np.multiply(v, b2, out=nu)
            nu += scratch
            denominator = np.sqrt(nu, out=update)
            denominator *= root_correction
            denominator += eps
            np.divide(mu, denominator, out=update)
            update *= step_size
            if decays:
                update -= p * (rate * weight_decay)

        updates, mu, nu = entrywise(one, params, grads, state.mu, state.nu, decays, outputs=3)
        return updates, AdamState(np.int64(count), mu, nu)

    return GradientTransformation(init, update, by_entry)


def adam(
    learning_rate: float | Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    """Return Adam, which is AdamW without decay; arguments and defaults are those of optax."""
    return adamw(learning_rate, b1, b2, eps, weight_decay=0.0)
