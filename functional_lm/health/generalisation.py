"""Overfitting: what the validation loss says beside that of the training."""

import math

from .finding import Finding
from .history import History, running_median

LOST = 0.05
"""The share by which the validation loss is above its lowest when it counts: the generalisation
loss of 5%, a usual choice for early stopping (Prechelt 1998, "Early stopping - but when?")."""

GAP = math.log(2)
"""Nats between the two losses: to the model, held-out text is twice as perplexing. A gap alone may
be due to another kind of text at the end, so it counts only if validation has stopped to improve.
"""

WINDOW = 25


def overfitting(history: History) -> Finding | None:
    """The validation loss rises, or stands still far above a training loss that falls."""
    finite = history.finite
    known = history.validations
    if len(known) < 2 or not len(finite.loss):
        return None
    step, last = known[-1]
    best_step, best = min(known[:-1], key=lambda pair: pair[1])
    medians = running_median(finite.loss, WINDOW)
    training = float(medians[finite.steps <= step][-1])
    before = float(medians[finite.steps <= best_step][-1])
    rises = last > (1 + LOST) * best
    stands = last > 0.99 * best and last - training > GAP
    if training >= before or not (rises or stands):
        return None
    return Finding(
        "overfitting",
        "warning",
        (best_step, step),
        f"the validation loss went from {best:.3g} at step {best_step} to {last:.3g} at step "
        f"{step}, while the training loss went from {before:.3g} to {training:.3g}",
        "train on more text, or stop at the best validation; dropout, more weight decay or a "
        "smaller model help too",
    )
