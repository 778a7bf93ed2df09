"""A stretch of bad data in the stream of batches."""

import numpy as np

from ..contract import Array
from .finding import Finding
from .history import History

BEFORE = 10
"""Steps whose median is what the loss was before."""

RECENT = 3

NOISE = 6.0
"""A jump is this many times the noise of a batch: once in 10⁹ steps, if that were normal."""

LEAST = 0.3
"""Nats that a jump has at least; batches of a text in order rarely differ by more."""

SHORTEST = 4
"""Steps. A few bad batches are outliers, which clipping is for; and a text that is read in order
has odd places."""

LONGEST = 1 / 3
"""Of the run. What takes longer is another text."""


def corrupted_data(history: History) -> Finding | None:
    """The loss jumps up from one step to the next, stays up for a while, and comes back.

    A model changes little in one step, so that a jump comes from the batch; training that is
    unstable climbs over several steps instead. So the `RECENT` steps before have to be as low as
    those before them, the first one has to stand out from each of them, and to be at half of the
    height that is reached. The noise of a batch is measured by the median absolute difference
    between neighbours, on which neither a trend nor the stretch has influence.

    Half of the jump must be gone within `LONGEST`. The model has adapted to bad data meanwhile, so
    that the loss may come back later than the data; the steps that are named are those at which it
    is clearly above what it was.
    """
    finite = history.finite
    loss = finite.loss
    if len(loss) < 3 * BEFORE:
        return None
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
        top = float(loss[start:half].max())
        if top - before > 2 * (loss[start] - before):
            continue
        back = _below(loss, start, before + least)
        first, last = int(finite.steps[start]), int(finite.steps[-1 if back is None else back - 1])
        said = f"at step {first} the loss jumped from {before:.3g} to {loss[start]:.3g}"
        if back is None:
            said += f", and it has come down to {loss[-1]:.3g} by now"
        else:
            said += f", was above for {back - start} steps, and came back to {loss[back]:.3g}"
        return Finding(
            "corrupted data",
            "warning",
            (first, last),
            said,
            "look at the text of the batches from there on and take the bad part out; then go back "
            "to weights from before it",
        )
    return None


def _below(loss: Array, start: int, limit: float) -> int | None:
    """Return the first step after a jump from which the loss stays below a limit, if there is one.

    It stays there if the next loss is below too.
    """
    for stop in range(start + SHORTEST, len(loss) - 1):
        if max(loss[stop : stop + 2]) < limit:
            return stop
    return None
