"""What is wrong with a run, from its records.

`diagnose` is a pure function of the records. Each of the twelve troubles has a check of its own,
with its thresholds and their reasons beside it. A healthy run has no findings::

    for finding in diagnose(read_metrics("runs/a/metrics.jsonl"), vocab_size=65):
        print(finding.name, finding.evidence, finding.remedy)

``python tests/campaigns/unhealthy/run.py`` measures them against runs made unhealthy on purpose.
"""

from collections.abc import Sequence

from ..runs.metrics import Record
from .activations import bad_initialisation, dead_units, saturated_attention
from .data import corrupted_data
from .gradients import exploding_gradients, vanishing_gradients
from .history import Check, Finding, History, Severity
from .loss import divergence, overfitting, plateau, skipped_updates
from .rate import no_warm_up, rate_too_high

__all__ = ["CHECKS", "Check", "Finding", "Severity", "can_look", "diagnose"]

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        bad_initialisation,
        rate_too_high,
        no_warm_up,
        dead_units,
        saturated_attention,
        vanishing_gradients,
        exploding_gradients,
        divergence,
        corrupted_data,
        skipped_updates,
        overfitting,
        plateau,
    )
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
    findings = {name: finding for name, check in CHECKS.items() if (finding := check(history))}
    explained = {trouble for name in findings for trouble in CHECKS[name].explains}
    return [finding for name, finding in findings.items() if name not in explained]


def can_look(records: Sequence[Record]) -> dict[str, bool]:
    """Return for each trouble whether the records hold what its check needs."""
    held = {name for record in records for name, value in record.items() if value is not None}
    return {name: check.needs in held for name, check in CHECKS.items()}
