"""The figures of a run, one JSON object for each step."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any, TypeAlias

from ..files import FileFormatError, parse_json, write_atomic
from ..files.reading import read_bytes
from ..training.loop import TrainStep

Record: TypeAlias = dict[str, Any]
"""``step, loss, lr, grad_norm, step_ms, tokens_per_second``; where there are any also ``val_loss``,
``sample`` (a text that the model wrote), ``fault`` (why there was no update), and ``statistics``
(see `statistics`)."""


MAX_BYTES = 2**31
"""Of a file of metrics: ten million steps."""


def record_of(step: TrainStep, *, lr: float, tokens: int) -> Record:
    """Return the figures of an update.

    Args:
        step: the update.
        lr: its learning rate.
        tokens: the number of tokens in its batch.
    """
    record: Record = {
        "step": step.state.step,
        "loss": step.loss,
        "lr": lr,
        "grad_norm": step.grad_norm,
        "step_ms": round(step.seconds * 1000, 3),
        "tokens_per_second": round(tokens / step.seconds),
    }
    if step.fault:
        record["fault"] = step.fault
    if step.inspected is not None:
        record["statistics"] = step.inspected
    return record


class MetricsFile:
    """Appends records to a file, a line each; NaN and infinity are written as null.

    Attributes:
        kept: the records that the file began with.
    """

    def __init__(self, path: str | Path, *, keep: int = 0) -> None:
        """Make a file, empty but for the steps of an earlier one up to ``keep``.

        The last line of the earlier one may be torn: its process may have been killed.
        """
        path = Path(path)
        lines = _whole_lines(path, keep) if keep and path.exists() else []
        self.kept = [record for _, record in lines]
        write_atomic(path, b"".join(line for line, _ in lines))
        self._file = path.open("ab", buffering=0)
        self._waiting: list[bytes] = []
        self._flushed = time.monotonic()

    def append(self, record: Record, *, flush: bool) -> Record:
        """Write a record, within a second or with flush at once; return it as a reader finds it."""
        written = _finite(record)
        self._waiting.append(json.dumps(written, allow_nan=False).encode() + b"\n")
        if flush or time.monotonic() > self._flushed + 1:
            self.flush()
        return written

    def flush(self) -> None:
        """Hand all records to the operating system: they outlive this process.

        Raises:
            OSError: if they do not fit; then the file is as it was, and they still wait.
        """
        end = os.fstat(self._file.fileno()).st_size
        data = memoryview(b"".join(self._waiting))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            os.ftruncate(self._file.fileno(), end)
            raise
        self._waiting.clear()
        self._flushed = time.monotonic()

    def sync(self) -> None:
        """Have what was flushed on the disk: it outlives the machine's power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what waits, and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()


def _whole_lines(path: Path, last_step: int) -> list[tuple[bytes, Record]]:
    """Return the lines of the steps 1, 2, ... up to one, with their records."""
    kept: list[tuple[bytes, Record]] = []
    data = read_bytes(path, max_bytes=MAX_BYTES)
    for line in data.splitlines(keepends=True)[:last_step]:
        try:
            record = parse_json(line, path)
        except FileFormatError:
            break
        if not isinstance(record, dict) or record.get("step") != len(kept) + 1:
            break
        kept.append((line.rstrip(b"\r\n") + b"\n", record))
    return kept


def _finite(value: Any) -> Any:
    """Return a value with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: str | Path) -> list[Record]:
    """Return the records of a file. The last line may be torn, if its process was killed.

    Raises:
        OSError: if it cannot be read.
        FileFormatError: naming the line that is no record.
    """
    records: list[Record] = []
    lines = read_bytes(path, max_bytes=MAX_BYTES).splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        where = f"{path} line {number}"
        try:
            record = parse_json(line, where)
        except FileFormatError:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise FileFormatError(where, "is no record of a step; remove it")
        records.append(record)
    return records
