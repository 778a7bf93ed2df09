"""What the losses show: divergence, a plateau, overfitting and skipped updates."""

import math
from collections.abc import Iterator

import numpy as np

from .history import History, Sign, check, running_median

EXPLOSION = 0.5
"""Nats: a perplexity 1.6 times what it was. The median of `WINDOW` losses of a healthy run moves by
a tenth of that, since its batches differ by some 0.1 nats."""

WINDOW = 15

SLOWEST = 0.01
"""On a plateau, a quarter of the run improves the loss by less than this share."""

FEWEST = 500
"""Steps. A transformer may spend the first few hundred at the loss of single characters, before its
attention finds anything."""

LEARNED = 0.1
"""Below this share of the first loss there is nothing left to learn."""

LOST = 0.05
"""Share of the lowest validation loss: a generalisation loss of 5% is a usual choice for early
stopping (Prechelt 1998, "Early stopping - but when?")."""

GAP = math.log(2)
"""Nats between the two losses: to the model, held-out text is twice as perplexing. A gap alone may
come from another kind of text at the end, so it counts only if validation no longer improves."""

TRAINING_WINDOW = 25

SPOILED = 0.01
"""Share of skipped updates that spoils a run: loss scaling in mixed precision skips about one in
2000 by design, and a float32 run none."""


@check(
    "divergence",
    needs="loss",
    remedy="go back to weights from before it and lower the learning rate; if that does not help, "
    "check the gradients and the data of those steps",
)
def divergence(history: History) -> Iterator[Sign]:
    """The loss ends far above its lowest, or is not finite at the end.

    Medians of `WINDOW` losses are compared, so that neither a bad batch nor a passing spike counts.
    Other findings name the cause where it shows.
    """
    finite = history.finite
    if not len(finite.loss):
        return
    after = history.steps[history.steps > finite.steps[-1]]
    medians = running_median(finite.loss, WINDOW)
    lowest, end = int(medians.argmin()), float(medians[-1])
    risen = len(medians) >= 2 * WINDOW and end > medians[lowest] + EXPLOSION
    if not risen and len(after) < WINDOW:
        return
    evidence = f"the loss was {medians[lowest]:.3g} at step {finite.steps[lowest]}"
    if risen:
        evidence += f" and is {end:.3g} at step {finite.steps[-1]}"
    if len(after):
        evidence += f" and not finite from step {after[0]} on"
    yield Sign(
        finite.steps[lowest],
        history.steps[-1],
        evidence,
    )


@check(
    "plateau",
    needs="loss",
    severity="warning",
    remedy="stop here, or decay the rate if it is constant; if the loss is not as low as it should "
    "be, try another rate and a larger model, and check that every layer gets a gradient",
)
def plateau(history: History) -> Iterator[Sign]:
    """The loss does not improve in the second half of a run, though the rate would allow it.

    The means of the third and the last quarter are compared, and two standard errors are added to
    the gain, so that noise in a short run says nothing. A run that decays its rate to a tenth of
    the peak has a quarter of it left on average here, and still gains 3% and more. A loss below
    `LEARNED` of the first has nothing left to learn.
    """
    finite = history.finite
    N = len(finite.loss)
    if N < FEWEST:
        return
    third, last = finite.loss[N // 2 : 3 * N // 4], finite.loss[3 * N // 4 :]
    gain = float(third.mean() - last.mean())
    error = math.sqrt(third.var() / len(third) + last.var() / len(last))
    rates = finite.lr[N // 2 :]
    if rates.mean() < 0.1 * np.nanmax(finite.lr) or last.mean() < LEARNED * finite.loss[0]:
        return
    if abs(gain) + 2 * error >= SLOWEST * last.mean():
        return
    yield Sign(
        finite.steps[N // 2],
        finite.steps[-1],
        f"the loss stays at {last.mean():.4g}: the last quarter of the run gained {gain:+.2g} over "
        f"the third, at a rate of {rates.mean():.1e}",
    )


@check(
    "overfitting",
    needs="val_loss",
    severity="warning",
    remedy="train on more text, or stop at the best validation; dropout, more weight decay or a "
    "smaller model help too",
    explains=("plateau",),
)
def overfitting(history: History) -> Iterator[Sign]:
    """The validation loss rises, or stays far above a training loss that falls."""
    finite, known = history.finite, history.validations
    if len(known) < 2 or not len(finite.loss):
        return
    step, last = known[-1]
    best_step, best = min(known[:-1], key=lambda pair: pair[1])
    medians = running_median(finite.loss, TRAINING_WINDOW)
    if finite.steps[0] > best_step:
        return
    training = float(medians[finite.steps <= step][-1])
    before = float(medians[finite.steps <= best_step][-1])
    rises = last > (1 + LOST) * best
    stays = last > 0.99 * best and last - training > GAP
    if training >= before or not (rises or stays):
        return
    yield Sign(
        best_step,
        step,
        f"the validation loss went from {best:.3g} at step {best_step} to {last:.3g} at step "
        f"{step}, while the training loss went from {before:.3g} to {training:.3g}",
    )


@check(
    "skipped updates",
    needs="loss",
    severity="warning",
    remedy="lower the learning rate or warm up for longer; if single batches are at fault, look at "
    "their text",
)
def skipped_updates(history: History) -> Iterator[Sign]:
    """A loss or a gradient was not finite, so its update was skipped."""
    if not history.faults:
        return
    count, total = len(history.faults), len(history.steps)
    (first, fault), (last, _) = history.faults[0], history.faults[-1]
    evidence = (
        f"{count} of {total} updates {'was' if count == 1 else 'were'} skipped, the first at "
    )
    evidence += f"step {first}: {fault}"
    yield Sign(first, last, evidence, "error" if count > SPOILED * total else "warning")
