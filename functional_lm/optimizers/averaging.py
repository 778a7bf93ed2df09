"""The exponential moving average of the parameters (Polyak and Juditsky 1992).

With the parameters p after step t = 1, 2, ... and the decay β, the average a starts as none and

    a ← a + (1 − β)/(1 − βᵗ)·(p − a)

which is the debiased average of ``optax.ema``: its weights add up to one from the first step on.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree, expect_number
from ..speed.entrywise import entrywise
from .transformation import GradientTransformation, apply_updates, by_entry

__all__ = ["ParamsEmaState", "averaged", "params_ema"]


class ParamsEmaState(NamedTuple):
    """The state of `params_ema`."""

    count: np.int64  # type: ignore[assignment]  # updates made; optax has this name too
    ema: Tree  # the average, like params; before the first update the params


def params_ema(decay: float) -> GradientTransformation:
    """Keep the average of the parameters and pass updates on: the last of a `chain`.

    Args:
        decay: β.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    decay = expect_number("decay", decay, low=0.0, high=math.nextafter(1.0, 0.0))

    def init(params: Tree) -> ParamsEmaState:
        return ParamsEmaState(np.int64(0), params)

    def update(
        updates: Tree, state: ParamsEmaState, params: Tree, norm: float | None = None
    ) -> tuple[Tree, ParamsEmaState]:
        count = int(state.count) + 1
        share = (1 - decay) / (1 - decay**count)

        def one(a: Array, p: Array, out: Array) -> None:
            np.subtract(p, a, out=out)
            out *= share
            out += a

        ema = entrywise(one, state.ema, apply_updates(params, updates))
        return updates, ParamsEmaState(np.int64(count), ema)

    return GradientTransformation(init, update, by_entry)


def averaged(params: Tree, optimizer_state: Any) -> Tree:
    """Return the averaged parameters, or the plain ones of a chain that does not end in an average.

    Args:
        params: all of them; those that are not trained are returned as they are.
        optimizer_state: of the chain.
    """
    last = optimizer_state[-1] if isinstance(optimizer_state, tuple) and optimizer_state else None
    if not isinstance(last, ParamsEmaState):
        return params
    trained = dict(pytree.leaves_with_path(last.ema))
    return pytree.map_with_path(lambda path, leaf: trained.get(path, leaf), params)
