"""The figures of a run, one JSON object for each step."""

import json
import math
from pathlib import Path
from typing import Any, TypeAlias

from ..files import write_atomic
from .loop import TrainStep

Record: TypeAlias = dict[str, Any]
"""``step, loss, lr, grad_norm, step_ms, tokens_per_second``, and ``val_loss`` where measured."""


def record_of(step: TrainStep, *, lr: float, tokens: int) -> Record:
    """Return the figures of an update.

    Args:
        step: the update.
        lr: its learning rate.
        tokens: the number of tokens in its batch.
    """
    return {
        "step": step.state.step,
        "loss": step.loss,
        "lr": lr,
        "grad_norm": step.grad_norm,
        "step_ms": round(step.seconds * 1000, 3),
        "tokens_per_second": round(tokens / step.seconds),
    }


class MetricsFile:
    """Appends records to a file, a line each; NaN and infinity are written as null."""

    def __init__(self, path: str | Path) -> None:
        """Make an empty file."""
        self._path = Path(path)
        write_atomic(self._path, b"")
        self._file = self._path.open("a", encoding="utf-8")

    def append(self, record: Record, *, flush: bool) -> None:
        """Write a record; with flush the file holds it when this returns."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")
        if flush:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[Record]:
    """Return the records of a file.

    Raises:
        OSError: if it cannot be read.
        ValueError: naming the line that is no JSON.
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}") from None
    return records
