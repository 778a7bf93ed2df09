"""What is wrong with a run, from its records.

`diagnose` is a pure function of the records. Each of the twelve troubles has a check of its own,
with its thresholds and their reasons beside it. A healthy run has no findings::

    for finding in diagnose(read_metrics("runs/a/metrics.jsonl"), vocab_size=65):
        print(finding.name, finding.evidence, finding.remedy)

``python tests/campaigns/unhealthy/run.py`` measures them against runs made unhealthy on purpose.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..runs.metrics import Record
from .activations import bad_initialisation, dead_units, saturated_attention
from .data import corrupted_data
from .gradients import exploding_gradients, vanishing_gradients
from .history import Finding, History, Severity
from .loss import divergence, overfitting, plateau, skipped_updates
from .rate import no_warm_up, rate_too_high

__all__ = ["CHECKS", "Check", "Finding", "Severity", "can_look", "diagnose"]


class Check(NamedTuple):
    """How one trouble is found."""

    look: Callable[[History], Finding | None]
    needs: str  # the part of the records that it reads
    explains: tuple[str, ...] = ()  # its consequences, which are not reported beside it


CHECKS = {
    "bad initialisation": Check(
        bad_initialisation,
        "statistics",
        ("saturated attention", "exploding gradients", "vanishing gradients", "plateau"),
    ),
    "learning rate too high": Check(
        rate_too_high,
        "statistics",
        (
            "divergence",
            "plateau",
            "skipped updates",
            "saturated attention",
            "exploding gradients",
            "vanishing gradients",
            "dead units",
            "corrupted data",
        ),
    ),
    "no warm-up": Check(no_warm_up, "statistics", ("saturated attention", "dead units")),
    "dead units": Check(dead_units, "statistics", ("plateau",)),
    "saturated attention": Check(saturated_attention, "statistics", ("plateau",)),
    "vanishing gradients": Check(vanishing_gradients, "statistics", ("plateau",)),
    "exploding gradients": Check(exploding_gradients, "statistics", ("divergence", "plateau")),
    "divergence": Check(divergence, "loss"),
    "corrupted data": Check(corrupted_data, "loss"),
    "skipped updates": Check(skipped_updates, "loss"),
    "overfitting": Check(overfitting, "val_loss", ("plateau",)),
    "plateau": Check(plateau, "loss"),
}
"""All troubles, causes before their consequences."""


def diagnose(records: Sequence[Record], *, vocab_size: int | None = None) -> list[Finding]:
    """Return what is wrong with a run, causes first; [] for a healthy one.

    A trouble that another one explains is not reported beside it: a rate that is too high makes
    attention collapse and the loss stall.

    Args:
        records: as `read_metrics` returns them; the run may still be going on.
        vocab_size: V; without it the first loss is not judged.
    """
    history = History.of(records, vocab_size)
    if not len(history.steps):
        return []
    found = {name: check.look(history) for name, check in CHECKS.items()}
    explained = {one for name in found if found[name] for one in CHECKS[name].explains}
    return [one for name, one in found.items() if one is not None and name not in explained]


def can_look(records: Sequence[Record]) -> dict[str, bool]:
    """Return for each trouble whether the records hold what its check needs."""
    held = {name for record in records for name, value in record.items() if value is not None}
    return {name: check.needs in held for name, check in CHECKS.items()}
