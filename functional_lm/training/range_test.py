"""The learning rate range test: one short run at rates that rise from far too low to far too high.

Smith 2017 (arXiv:1506.01186, section 3.3), with rates in a geometric series as in fastai's
``lr_find``. The usual readings, the rate of the fastest fall or a tenth of that of the lowest loss,
suit SGD: Adam with clipping and norms diverges late, after a loss that is flat over two powers of
ten. So the test reads off two rates, one at which the loss has done half of its fall and one at
which training diverges, and suggests a rate below their geometric mean. The factor between the two,
the optimizer's margin, suits a schedule that warms up, stays near its peak for hundreds of steps,
and decays.

``python tests/campaigns/benchmarks/run.py find-lr`` compares the suggestion with sweeps.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..contract import expect_int, expect_number
from ..numerics import smooth
from .experiment import Experiment
from .settings import OPTIMIZERS

HALF = 0.5
"""Share of the fall of the loss that marks the lower rate. The curve is steep there, so noise moves
that rate little, unlike the rate of the fastest fall or of the lowest loss."""

WINDOW = 5
"""Steps averaged into a loss."""

LEAST = 0.1
"""Nats by which the loss falls at least if anything is learned."""

EXPLOSION = 0.5
"""Nats above its start at which the loss has diverged."""


class RangeTest(NamedTuple):
    """What a range test measured."""

    rates: list[float]  # of each update
    losses: list[float]  # before it
    smoothed: list[float]  # means over neighbours
    halfway: float  # the rate at which the loss had done half of its fall
    diverged: float | None  # the rate at which the loss was far above its start, if it was
    margin: float = OPTIMIZERS["adamw"].margin

    @property
    def suggestion(self) -> float:
        """The peak rate for a schedule; half a guess if the test did not diverge."""
        if self.diverged is None:
            return 3 * self.halfway
        return math.sqrt(self.halfway * self.diverged) / self.margin


def range_test(
    experiment: Experiment,
    *,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 100,
    progress: Callable[[float], object] = lambda share: None,
) -> RangeTest:
    """Run the test with the model, the text, the batches and the optimizer of an experiment.

    It ends when the loss is `EXPLOSION` above its start or not finite.

    Args:
        experiment: whose schedule is ignored.
        lowest: the first rate.
        highest: the last.
        steps: updates from the first rate to the last.
        progress: called with the share of the steps that is done.

    Raises:
        ValueError: for rates or steps out of range.
        FloatingPointError: if no rate learned anything.
    """
    lowest = expect_number("lowest", lowest, low=1e-12)
    highest = expect_number("highest", highest, low=2 * lowest)
    steps = expect_int("steps", steps, minimum=4 * WINDOW)

    def schedule(step: int) -> float:
        return lowest * (highest / lowest) ** (step / (steps - 1))

    losses: list[float] = []
    diverged = False
    with contextlib.suppress(FloatingPointError):
        for step in dataclasses.replace(experiment, steps=steps).run(schedule=schedule):
            losses.append(step.loss)
            progress(step.state.step / steps)
            if len(losses) >= 2 * WINDOW:  # not <=, since a mean that is not finite counts too
                diverged = not np.mean(losses[-WINDOW:]) <= np.mean(losses[:WINDOW]) + EXPLOSION
            if diverged:
                break
    rates = [schedule(step) for step in range(len(losses))]
    found = read_off(rates, losses, diverged=diverged or len(losses) < steps)
    return found._replace(margin=OPTIMIZERS[experiment.settings.optimizer].margin)


def read_off(rates: list[float], losses: list[float], *, diverged: bool) -> RangeTest:
    """Read the two rates off a curve that ends where it diverged or with the highest rate.

    Raises:
        FloatingPointError: if the loss did not fall.
    """
    smoothed = smooth(losses, WINDOW)
    start, lowest = float(np.mean(losses[:WINDOW])), float(np.min(smoothed))
    if not start - lowest > LEAST:
        raise FloatingPointError(
            f"no learning rate learned anything: the loss was {start:.3f} first and {lowest:.3f} "
            "at best; pass lower or higher ones, or more steps"
        )
    halfway = int(np.argmax(smoothed <= start - HALF * (start - lowest)))
    middle = max(len(rates) - 1 - WINDOW // 2, 0)
    return RangeTest(
        rates, losses, smoothed.tolist(), rates[halfway], rates[middle] if diverged else None
    )
