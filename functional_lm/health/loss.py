"""What the loss alone says: it explodes, or it stands still."""

import math

import numpy as np

from .finding import Finding
from .history import History, running_median

EXPLOSION = 0.5
"""Nats: a perplexity 1.6 times what it was. The median of `WINDOW` losses of a run in order moves
by a tenth of that, since its batches differ by some 0.1 nats."""

WINDOW = 15

SLOWEST = 0.01
"""A loss stands still that a quarter of the run improves by less than this share of itself."""

FEWEST = 500
"""Steps. A transformer may spend the first few hundred at the loss of single characters, before its
attention finds anything."""

LEARNED = 0.1
"""Below this share of the first loss there is nothing left to learn."""


def divergence(history: History) -> Finding | None:
    """The loss ends far above its lowest, or is no number at the end.

    Medians of `WINDOW` losses are compared, so that a bad batch or a spike that is over does not
    count. It says nothing of the cause; other findings do, where it shows.
    """
    finite = history.finite
    if not len(finite.loss):
        return None
    after = history.steps[history.steps > finite.steps[-1]]
    medians = running_median(finite.loss, WINDOW)
    lowest, end = int(medians.argmin()), float(medians[-1])
    risen = len(medians) >= 2 * WINDOW and end > medians[lowest] + EXPLOSION
    if not risen and len(after) < WINDOW:
        return None
    said = f"the loss was {medians[lowest]:.3g} at step {finite.steps[lowest]}"
    if risen:
        said += f" and is {end:.3g} at step {finite.steps[-1]}"
    if len(after):
        said += f" and no number from step {after[0]} on"
    return Finding(
        "divergence",
        "error",
        (int(finite.steps[lowest]), int(history.steps[-1])),
        said,
        "go back to weights from before it and lower the learning rate; if that does not help, "
        "check the gradients and the data of those steps",
    )


def plateau(history: History) -> Finding | None:
    """The loss does not get better in the second half of a run, though the rate would allow it.

    The third and the last quarter are compared by their means. It stands still if the gain is less
    than `SLOWEST` of the loss even when two standard errors are added to it, so that noise in a
    short run says nothing. A run that decays its rate to a tenth of the peak has a quarter of it
    left on average here, and still gains 3% and more. A loss below `LEARNED` of the first is no
    plateau but the bottom.
    """
    finite = history.finite
    N = len(finite.loss)
    if N < FEWEST:
        return None
    third, last = finite.loss[N // 2 : 3 * N // 4], finite.loss[3 * N // 4 :]
    gain = float(third.mean() - last.mean())
    error = math.sqrt(third.var() / len(third) + last.var() / len(last))
    rates = finite.lr[N // 2 :]
    if rates.mean() < 0.1 * np.nanmax(finite.lr) or last.mean() < LEARNED * finite.loss[0]:
        return None
    if abs(gain) + 2 * error >= SLOWEST * last.mean():
        return None
    return Finding(
        "plateau",
        "warning",
        (int(finite.steps[N // 2]), int(finite.steps[-1])),
        f"the loss stands at {last.mean():.4g}: the last quarter of the run gained {gain:+.2g} on "
        f"the one before, at a rate of {rates.mean():.1e}",
        "stop here, or decay the rate if it is constant; if the loss is not as good as it should "
        "be, try another rate and a larger model, and check that every layer gets a gradient",
    )
