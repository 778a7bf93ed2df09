"""A stretch of bad data in the stream of batches."""

import numpy as np

from ...contract import Array
from .finding import Finding
from .history import History

BEFORE = 10
"""Steps whose median is what the loss was before."""

RECENT = 3

NOISE = 6.0
"""A jump is this many times the noise of a batch: once in 10⁹ steps, if that were normal."""

LEAST = 0.3
"""Nats that a jump has at least; batches of a text in order rarely differ by more."""

SHORTEST = 2
"""Steps; a single bad batch is an outlier, which clipping is for."""

LONGEST = 1 / 3
"""Of the run. What takes longer is another text."""


def corrupted_data(history: History) -> Finding | None:
    """The loss jumps up from one step to the next, stays up for a while, and comes back.

    A model changes little in one step, so that a jump comes from the batch; training that is
    unstable climbs over several steps instead. So the first step has to stand out from each of the
    `RECENT` before it, and to be at half of the height that is reached. The noise of a batch is
    measured by the median absolute difference between neighbours, on which neither a trend nor the
    stretch has influence. The stretch ends where half of the jump is gone: a model has adapted to
    bad data meanwhile, and the loss does not come back at once.
    """
    finite = history.finite
    loss = finite.loss
    if len(loss) < 3 * BEFORE:
        return None
    noise = 1.4826 * float(np.median(np.abs(np.diff(loss)))) / np.sqrt(2)
    least = max(NOISE * noise, LEAST)
    for start in range(BEFORE, len(loss) - SHORTEST):
        before = float(np.median(loss[start - BEFORE : start]))
        if min(loss[start : start + SHORTEST]) - before <= least:
            continue
        if loss[start] - max(loss[start - RECENT : start]) <= least:  # it has been climbing
            continue
        stop = _end(loss, start, before)
        if stop is None or stop - start > LONGEST * len(loss):
            continue
        top = float(loss[start:stop].max())
        if top - before > 2 * (loss[start] - before):
            continue
        first, last = int(finite.steps[start]), int(finite.steps[stop - 1])
        return Finding(
            "corrupted data",
            "warning",
            (first, last),
            f"at step {first} the loss jumped from {before:.3g} to {loss[start]:.3g}; it was up to "
            f"{top:.3g} for {stop - start} steps, and came back to {loss[stop]:.3g} after step "
            f"{last}",
            "look at the text of these steps' batches and take the bad part out; then go back to "
            "weights from before them",
        )
    return None


def _end(loss: Array, start: int, before: float) -> int | None:
    """Return the first step after a jump from which half of it is gone, if there is one."""
    half = (float(loss[start]) + before) / 2
    for stop in range(start + SHORTEST, len(loss) - 1):
        if max(loss[stop : stop + SHORTEST]) < half:
            return stop
    return None
