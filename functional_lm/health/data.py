"""A stretch of bad data in the stream of batches."""

from collections.abc import Iterator

import numpy as np

from ..contract import Array
from .history import History, Sign, check

BEFORE = 10
"""Steps whose median is the level before the jump."""

RECENT = 3

NOISE = 6.0
"""A jump is this many times the noise of a batch: once in 10⁹ steps, if that were normal."""

LEAST = 0.3
"""Nats that a jump has at least; batches of healthy text rarely differ by more."""

SHORTEST = 4
"""Steps. A few bad batches are outliers, which clipping is for; and text that is read in order has
odd passages."""

LONGEST = 1 / 3
"""Of the run. Anything longer is another text."""


@check(
    "corrupted data",
    needs="loss",
    severity="warning",
    remedy="look at the text of these batches and remove the bad part; then go back to weights "
    "from before it",
)
def corrupted_data(history: History) -> Iterator[Sign]:
    """The loss jumps up from one step to the next, stays up for a while, and comes back.

    A model changes little in one step, so a jump comes from the batch; unstable training climbs
    over several steps instead. Hence the `RECENT` steps before must be as low as those before them,
    and the first step must stand out from each of them and reach half of the final height. The
    median absolute difference between neighbours measures the noise of a batch: neither a trend
    nor the stretch affects it.

    Half of the jump must be gone within `LONGEST`. The model adapts to bad data, so the loss may
    come back later than the data; the finding names the steps at which it is clearly higher.
    """
    finite = history.finite
    loss = finite.loss
    if len(loss) < 3 * BEFORE:
        return
    noise = 1.4826 * float(np.median(np.abs(np.diff(loss)))) / np.sqrt(2)
    least = max(NOISE * noise, LEAST)
    for start in range(BEFORE, len(loss) - SHORTEST):
        before = float(np.median(loss[start - BEFORE : start]))
        recent = loss[start - RECENT : start]
        if min(loss[start : start + SHORTEST]) - before <= least:
            continue
        if np.median(recent) - before > least / 2 or loss[start] - max(recent) <= least / 2:
            continue  # it has been climbing
        half = _below(loss, start, (float(loss[start]) + before) / 2)
        if half is None or half - start > LONGEST * len(loss):
            continue
        if float(loss[start:half].max()) - before > 2 * (loss[start] - before):
            continue
        back = _below(loss, start, before + least)
        first, last = finite.steps[start], finite.steps[-1 if back is None else back - 1]
        evidence = f"at step {first} the loss jumped from {before:.3g} to {loss[start]:.3g}"
        if back is None:
            evidence += f", and has since come down to {loss[-1]:.3g}"
        else:
            evidence += f"; {back - start} steps later it was back at {loss[back]:.3g}"
        yield Sign(first, last, evidence)
        return


def _below(loss: Array, start: int, limit: float) -> int | None:
    """Return the first step after a jump at which this loss and the next are below a limit."""
    for stop in range(start + SHORTEST, len(loss) - 1):
        if max(loss[stop : stop + 2]) < limit:
            return stop
    return None
