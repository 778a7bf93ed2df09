"""Learning rates as pure functions of the number of updates made so far."""

import math
from collections.abc import Callable
from typing import TypeAlias

from ..contract import expect_int, expect_number

__all__ = [
    "Schedule",
    "as_schedule",
    "constant_schedule",
    "linear_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_inverse_sqrt_schedule",
    "warmup_stable_decay_schedule",
]

Schedule: TypeAlias = Callable[[int], float]


def as_schedule(learning_rate: float | Schedule) -> Schedule:
    """Return a schedule unchanged, or a constant schedule for a number."""
    if callable(learning_rate):
        return learning_rate
    return constant_schedule(expect_number("learning_rate", learning_rate))


def constant_schedule(value: float) -> Schedule:
    """Return a schedule that is always ``value``."""
    value = expect_number("value", value)
    return lambda step: value


def linear_schedule(
    init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Go linearly from one value to another; arguments are those of optax.

    Args:
        init_value: up to step ``transition_begin``.
        end_value: from step ``transition_begin + transition_steps`` on.
        transition_steps: the length of the transition, in steps.
        transition_begin: its first step.
    """
    init_value = expect_number("init_value", init_value)
    end_value = expect_number("end_value", end_value)
    transition_steps = expect_int("transition_steps", transition_steps)
    transition_begin = expect_int("transition_begin", transition_begin, minimum=0)

    def schedule(step: int) -> float:
        progress = (int(step) - transition_begin) / transition_steps
        return init_value + (end_value - init_value) * min(max(progress, 0.0), 1.0)

    return schedule


def warmup_cosine_decay_schedule(
    peak_value: float, warmup_steps: int, decay_steps: int, end_value: float = 0.0
) -> Schedule:
    """Rise linearly to the peak, then fall along half a cosine.

    Step s of the warm-up has the rate ``peak_value * (s + 1) / warmup_steps``: unlike optax's,
    which starts at zero, no step is wasted. From ``decay_steps`` on the rate is ``end_value``.

    Args:
        peak_value: the rate after the warm-up.
        warmup_steps: updates until the peak.
        decay_steps: updates until the end, the warm-up included.
        end_value: the last rate.

    Source: Loshchilov and Hutter 2017, eq. 5, for one cycle.
    """
    peak_value, end_value = _rates(peak_value, end_value, warmup_steps, warmup_steps, decay_steps)

    def schedule(step: int) -> float:
        if step >= decay_steps:
            return end_value
        if step < warmup_steps:
            return peak_value * (int(step) + 1) / warmup_steps
        progress = (int(step) - warmup_steps) / (decay_steps - warmup_steps)
        return end_value + (peak_value - end_value) * 0.5 * (1 + math.cos(math.pi * progress))

    return schedule


def warmup_stable_decay_schedule(
    peak_value: float,
    warmup_steps: int,
    decay_begin: int,
    decay_steps: int,
    end_value: float = 0.0,
) -> Schedule:
    """Rise linearly to the peak, stay there, then fall linearly.

    It is linear from the warm-up on with ``decay_begin = warmup_steps``, and constant with
    ``decay_begin = decay_steps``. The warm-up is as in `warmup_cosine_decay_schedule`.

    Args:
        peak_value: the rate after the warm-up.
        warmup_steps: updates until the peak.
        decay_begin: updates until the fall, the warm-up included.
        decay_steps: updates until the end, all included.
        end_value: the last rate.

    Source: Hu et al. 2024 (MiniCPM), eq. 1, with a linear fall as in Hägele et al. 2024.
    """
    peak_value, end_value = _rates(peak_value, end_value, warmup_steps, decay_begin, decay_steps)
    fall = linear_schedule(peak_value, end_value, max(decay_steps - decay_begin, 1), decay_begin)

    def schedule(step: int) -> float:
        if step < warmup_steps:
            return peak_value * (int(step) + 1) / warmup_steps
        return fall(step)

    return schedule


def warmup_inverse_sqrt_schedule(peak_value: float, warmup_steps: int) -> Schedule:
    """Rise linearly to the peak, then fall with the root of the steps, without an end.

    Args:
        peak_value: the highest rate.
        warmup_steps: w, updates until the peak; update n = 1, 2, ... has the rate
            ``peak_value * min(n / w, sqrt(w / n))``.

    Source: Vaswani et al. 2017, eq. 3.
    """
    peak_value, _ = _rates(peak_value, 0.0, warmup_steps, warmup_steps, max(warmup_steps, 1))
    w = max(warmup_steps, 1)
    return lambda step: peak_value * min((int(step) + 1) / w, math.sqrt(w / (int(step) + 1)))


def _rates(peak: float, end: float, *steps: int) -> tuple[float, float]:
    """Check the arguments of a schedule with a warm-up, and return its rates."""
    warmup_steps, decay_begin, decay_steps = steps
    expect_int("warmup_steps", warmup_steps, minimum=0)
    expect_int("decay_steps", decay_steps, minimum=1)
    if not warmup_steps <= decay_begin <= decay_steps:
        name, value = "warmup_steps", warmup_steps
        if warmup_steps <= decay_steps:
            name, value = "decay_begin", decay_begin
        raise ValueError(
            f"{name} must be at most decay_steps: got {value} and {decay_steps}; "
            "warm up for fewer steps"
        )
    return expect_number("peak_value", peak), expect_number("end_value", end)
