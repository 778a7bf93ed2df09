"""The training loop: a generator of states. Nothing is hidden and nothing is written to.

In a notebook::

    optimizer = chain(clip_by_global_norm(1.0), adamw(3e-4))
    for step in train(model, init_state(params, optimizer), optimizer=optimizer,
                      batch_at=batch, steps=2000):
        print(step.state.step, step.loss)
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import pytree
from ..contract import Differentiable, Tree
from ..gradient import ValueAndGrad, value_and_grad
from ..optimizers import GradientTransformation, apply_updates


class TrainState(NamedTuple):
    """All that changes in training."""

    step: int  # updates made
    params: Tree
    optimizer_state: Any


class TrainStep(NamedTuple):
    """One update, as `train` yields it."""

    state: TrainState  # after the update
    loss: float  # of the batch, before the update
    grad_norm: float  # of the gradient, before clipping
    seconds: float  # that the update took


def init_state(params: Tree, optimizer: GradientTransformation) -> TrainState:
    """Return the state before the first update."""
    return TrainState(0, params, optimizer.init(params))


def train(
    layer: Differentiable,
    state: TrainState,
    *,
    optimizer: GradientTransformation,
    batch_at: Callable[[int], tuple[Any, dict[str, Any]]],
    steps: int,
    value_and_grad: ValueAndGrad = value_and_grad,
) -> Iterator[TrainStep]:
    """Yield a `TrainStep` after each update until ``steps`` have been made.

    Args:
        layer: any loss with ``forward`` and ``vjp``.
        state: where to start, from `init_state` or from an earlier run.
        optimizer: a pure pair.
        batch_at: maps the number of updates made to ``(x, side)``, the positional and the
            keyword-only inputs of the layer.
        steps: the number of updates at the end, those of an earlier run included.
        value_and_grad: another way to the gradient, such as `sharding.sharded`.

    Raises:
        FloatingPointError: for a gradient that is not finite, if the optimizer looks.
    """
    while state.step < steps:
        start = time.perf_counter()
        x, side = batch_at(state.step)
        # What a step makes on the way is a function's own, so that it is gone before the next one.
        state, loss, grad_norm = _update(layer, state, optimizer, value_and_grad, x, side)
        yield TrainStep(state, loss, grad_norm, time.perf_counter() - start)


def _update(
    layer: Differentiable,
    state: TrainState,
    optimizer: GradientTransformation,
    value_and_grad: ValueAndGrad,
    x: Any,
    side: dict[str, Any],
) -> tuple[TrainState, float, float]:
    """Return the next state, the loss and the norm of the gradient."""
    loss, grads = value_and_grad(layer, state.params, x, **side)
    updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.params)
    params = apply_updates(state.params, updates)
    after = TrainState(state.step + 1, params, optimizer_state)
    return after, float(loss), pytree.global_norm(grads)
