"""Updates that were not made."""

from .finding import Finding
from .history import History

SPOILED = 0.01
"""The share of skipped updates from which on they spoil a run: mixed precision's loss scaling
skips about one in 2000 by design, and a float32 run none."""


def skipped_updates(history: History) -> Finding | None:
    """A loss or a gradient was not finite, and its update was left out."""
    if not history.faults:
        return None
    count, total = len(history.faults), len(history.steps)
    (first, fault), (last, _) = history.faults[0], history.faults[-1]
    return Finding(
        "skipped updates",
        "error" if count > SPOILED * total else "warning",
        (first, last),
        f"{count} of {total} updates {'was' if count == 1 else 'were'} skipped, the first at step "
        f"{first}: {fault}",
        "lower the learning rate or warm up for longer; if single batches are at fault, look at "
        "their text",
    )
