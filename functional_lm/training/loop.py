"""The training loop: a generator of states. Nothing is hidden and nothing is written to.

In a notebook::

    optimizer = chain(clip_by_global_norm(1.0), adamw(3e-4))
    for step in train(model, init_state(params, optimizer), optimizer=optimizer,
                      batch_at=batch, steps=2000):
        print(step.state.step, step.loss)
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from .. import pytree
from ..contract import Differentiable, Tree, expect_int
from ..gradient import ValueAndGrad, value_and_grad
from ..optimizers import GradientTransformation, apply_updates, averaged
from ..speed.entrywise import global_norm
from ..speed.processes import Ownership

Inspect: TypeAlias = Callable[[int, Tree, Tree, Tree, Any], Any]
"""``(step, params, grads, updates, x)``: the number of an update, the parameters before it, the
gradient before clipping, what is added, and the inputs of the batch. Nothing may be written to.
Gradient and updates have None in place of leaves that are not trained."""

Trainable: TypeAlias = Callable[[str], bool]
"""Tells from the path of a leaf, such as ``blocks.0.norm1.scale``, whether it is trained."""


class TrainState(NamedTuple):
    """All that changes in training."""

    step: int  # batches taken
    params: Tree
    optimizer_state: Any
    notfinite_count: int = 0  # updates skipped in a row, as in optax.apply_if_finite
    total_notfinite: int = 0  # updates skipped

    @property
    def averaged(self) -> Tree:
        """The params, or their average if the optimizer ends in `params_ema`."""
        return averaged(self.params, self.optimizer_state)


class TrainStep(NamedTuple):
    """One batch, as `train` yields it."""

    state: TrainState  # after the update
    loss: float  # of the batch, before the update
    grad_norm: float  # of the gradient, before clipping
    seconds: float  # that it took
    fault: str = ""  # why there was no update
    inspected: Any = None  # what `inspect` returned
    inputs: Any = None  # of the batch, the positional ones


def init_state(
    params: Tree, optimizer: GradientTransformation, *, trainable: Trainable | None = None
) -> TrainState:
    """Return the state before the first update; give `train` the same ``trainable``.

    Raises:
        ValueError: if ``trainable`` selects no leaf.
    """
    trained, _ = _partition(params, trainable)
    if not pytree.leaves(trained) and pytree.leaves(params):
        paths = [path for path, _ in pytree.leaves_with_path(params)]
        raise ValueError(
            f"trainable must select at least one leaf: got none of {', '.join(paths)}; "
            "compare it with these paths"
        )
    return TrainState(0, params, optimizer.init(trained))


def train(
    layer: Differentiable,
    state: TrainState,
    *,
    optimizer: GradientTransformation,
    batch_at: Callable[[int], tuple[Any, dict[str, Any]]],
    steps: int,
    value_and_grad: ValueAndGrad = value_and_grad,
    max_consecutive_errors: int = 0,
    inspect: Inspect | None = None,
    inspect_at: Callable[[int], bool] = lambda step: True,
    trainable: Trainable | None = None,
    ownership: Ownership | None = None,
) -> Iterator[TrainStep]:
    """Yield a `TrainStep` after each batch until ``steps`` have been taken.

    A loss or gradient that is not finite never reaches the parameters or the optimizer.

    Args:
        layer: any loss with ``forward`` and ``vjp``.
        state: where to start, from `init_state` or from an earlier run.
        optimizer: a pure pair.
        batch_at: maps the number of batches taken to ``(x, side)``, the positional and the
            keyword-only inputs of the layer.
        steps: the number of batches at the end, those of an earlier run included.
        value_and_grad: another way to the gradient, such as `sharding.sharded`.
        max_consecutive_errors: the batches in a row without a finite loss and gradient that are
            left out; ``TrainStep.fault`` says what was wrong. The next one ends the loop.
        inspect: called with each update while its gradient is still there.
        inspect_at: tells from the number of an update whether it is inspected.
        trainable: which leaves are trained; all of them if not given. The others stay the same
            arrays, and the optimizer sees neither them nor their gradient.
        ownership: what this process updates, where several divide the state of the optimizer; its
            gradient is all that ``value_and_grad`` returns.

    Raises:
        FloatingPointError: for one such batch too many; it names the step, the batch, and the
            first leaf of the gradient at fault.
    """
    expect_int("max_consecutive_errors", max_consecutive_errors, minimum=0)

    def whole(tree: Tree) -> Tree:
        return tree if ownership is None else ownership.joined(tree)

    def take(state: TrainState) -> TrainStep:  # a function, so that its arrays are gone afterwards
        start = time.perf_counter()
        step, params, optimizer_state, in_a_row, total = state
        x, side = batch_at(step)
        loss, grads = value_and_grad(layer, params, x, **side)
        grads, _ = _partition(grads, trainable)
        grad_norm = global_norm(grads) if ownership is None else ownership.norm(grads)
        fault, inspected = "", None
        if math.isfinite(loss) and math.isfinite(grad_norm):
            trained, frozen = _partition(params, trainable)
            own = trained if ownership is None else ownership.own(trained)
            updates, optimizer_state = optimizer.update(grads, optimizer_state, own, grad_norm)
            if inspect is not None and inspect_at(step + 1):
                inspected = inspect(step + 1, params, whole(grads), whole(updates), x)
            params, in_a_row = pytree.combine(whole(apply_updates(own, updates)), frozen), 0
        else:
            grads = whole(grads)
            fault = f"step {step + 1}, batch {step}: {_what_is_not_finite(float(loss), grads)}"
            in_a_row, total = in_a_row + 1, total + 1
        state = TrainState(step + 1, params, optimizer_state, in_a_row, total)
        seconds = time.perf_counter() - start
        return TrainStep(state, float(loss), grad_norm, seconds, fault, inspected, x)

    while state.step < steps:
        taken = take(state)
        state = taken.state
        if state.notfinite_count > max_consecutive_errors:
            raise FloatingPointError(taken.fault)
        yield taken


def _partition(tree: Tree, trainable: Trainable | None) -> tuple[Tree, Tree]:
    return (tree, None) if trainable is None else pytree.partition(tree, trainable)


def _what_is_not_finite(loss: float, grads: Tree) -> str:
    leaf = pytree.first_not_finite(grads)
    faults = [] if math.isfinite(loss) else [f"the loss is {loss}"]
    if leaf or math.isfinite(loss):
        faults.append(f"in the gradient {leaf or 'the norm overflows float64'}")
    return " and ".join(faults)
