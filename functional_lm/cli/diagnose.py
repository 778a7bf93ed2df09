"""``functional-lm diagnose``."""

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..training import Record, read_metrics
from ..training.diagnosis import CHECKS, Finding, can_look, diagnose
from ..training.run_folder import CONFIG_FILE, METRICS_FILE

WIDTH, INDENT = 80, 9


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Say what is wrong with a training run, from what it recorded.

    The exit status is 0 whatever is found.

    Attributes:
        folder: the folder of a run that has ended or goes on.
        json: print one JSON object with the keys steps, findings, looked_for, not_looked_for.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    json: bool = False

    def run(self) -> int:
        """Print the findings."""
        vocab_size = _vocab_size(self.folder)
        records = read_metrics(self.folder / METRICS_FILE)
        findings = diagnose(records, vocab_size=vocab_size)
        able = can_look(records)
        looked = [name for name in CHECKS if able[name]]
        missing = [name for name in CHECKS if not able[name]]
        if self.json:
            said = {
                "steps": _steps(records),
                "findings": [finding.as_json() for finding in findings],
                "looked_for": looked,
                "not_looked_for": missing,
            }
            print(json.dumps(said, indent=2, allow_nan=False))
            return 0
        print(f"run      {self.folder}: {_summary(records)}\n")
        for finding in findings:
            print(_paragraph(finding) + "\n")
        if not findings:
            print("nothing found\n")
        print(_wrapped("looked", f"for {', '.join(looked)}" if looked else "for nothing"))
        reasons: dict[str, list[str]] = {}
        for name in missing:
            reasons.setdefault(CHECKS[name].needs, []).append(name)
        for needs, names in reasons.items():
            print(_wrapped("not", f"for {', '.join(names)}: no record has {needs}"))
        return 0


def _vocab_size(folder: Path) -> int | None:
    """Return the size of the vocabulary in a run's config.

    Raises:
        OSError: if there is no config, or it cannot be read.
        ValueError: if it is damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"a run folder must hold {CONFIG_FILE}: {folder} does not; pass what --out named"
        )
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a run: {error}") from None


def _steps(records: list[Record]) -> int:
    return max((record["step"] for record in records), default=0)


def _summary(records: list[Record]) -> str:
    losses: list[Any] = [record["loss"] for record in records if record["loss"] is not None]
    said = f"{_steps(records):,} steps"
    return f"{said}, loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else said


def _paragraph(finding: Finding) -> str:
    first, last = finding.steps
    steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
    return "\n".join(
        [
            _wrapped(finding.severity, f"{finding.name}, {steps}"),
            _wrapped("", _sentence(finding.evidence)),
            _wrapped("", f"Remedy: {finding.remedy}."),
        ]
    )


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}."


def _wrapped(label: str, said: str) -> str:
    return textwrap.fill(
        said,
        WIDTH,
        initial_indent=f"{label:{INDENT}}",
        subsequent_indent=" " * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
