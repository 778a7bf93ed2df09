"""``functional-lm diagnose``."""

import dataclasses
import json

from ..health import CHECKS, can_look, diagnose
from ..runs import Record
from ..runs.folder import read_config, vocab_size_of
from ..runs.records import FINAL, final_loss, series
from .display import wrapped
from .output import print
from .runs import RunFolder, read_records

INDENT = 9


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Say what is wrong with a training run, from what it recorded.

    The exit status is 0 even if something is found.

    Attributes:
        folder: the folder of a run, finished or not.
        json: print one JSON object with the keys steps, findings, looked_for, not_looked_for.
    """

    folder: RunFolder
    json: bool = False

    def run(self) -> int:
        """Print the findings."""
        vocab_size = vocab_size_of(read_config(self.folder))
        records = read_records(self.folder)
        findings = diagnose(records, vocab_size=vocab_size)
        able = can_look(records)
        looked = [name for name in CHECKS if able[name]]
        missing = [name for name in CHECKS if not able[name]]
        if self.json:
            report = {
                "steps": records[-1]["step"],
                "findings": [finding.as_json() for finding in findings],
                "looked_for": looked,
                "not_looked_for": missing,
            }
            print(json.dumps(report, indent=2, allow_nan=False))
            return 0
        print(f"run      {self.folder}: {_summary(records)}\n")
        for finding in findings:
            evidence = finding.evidence[:1].upper() + finding.evidence[1:]
            print(wrapped(finding.severity, f"{finding.name}, {finding.when}", INDENT))
            print(wrapped("", f"{evidence}.", INDENT))
            print(wrapped("", f"Remedy: {finding.remedy}.", INDENT) + "\n")
        if not findings:
            print("nothing found\n")
        print(wrapped("looked", f"for {', '.join(looked)}" if looked else "for nothing", INDENT))
        reasons: dict[str, list[str]] = {}
        for name in missing:
            reasons.setdefault(CHECKS[name].needs, []).append(name)
        for needs, names in reasons.items():
            print(wrapped("not", f"for {', '.join(names)}: no record has {needs}", INDENT))
        return 0


def _summary(records: list[Record]) -> str:
    losses = series(records, "loss").values
    steps = f"{records[-1]['step']:,} steps"
    if not len(losses):
        return steps
    mean = f" (mean of the last {FINAL})" if len(losses) > FINAL else ""
    bits = series(records, "bits_per_byte").values
    validation = f", validation {bits[-1]:.3f} bits per byte" if len(bits) else ""
    return f"{steps}, loss {losses[0]:.3f} to {final_loss(losses):.3f}{mean}{validation}"
