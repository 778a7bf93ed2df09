"""The figures of a run, one JSON object for each step."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any, TypeAlias

from ..files import FileFormatError, parse_json, read_bytes, write_atomic
from ..training.loop import TrainStep

Record: TypeAlias = dict[str, Any]
"""``step, loss, lr, grad_norm, step_ms, tokens_per_second``; where there are any also ``val_loss``
and ``bits_per_byte``, the same in bits per byte of the text, ``sample`` (a text that the model
wrote), ``fault`` (why there was no update), and ``statistics`` (see `statistics`)."""


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
        records: those that the file began with, and those appended, also if that failed.
        damaged: where the lines are that could not be read, or None.
    """

    def __init__(self, path: str | Path, *, keep: int = 0) -> None:
        """Make a file, empty but for the records of an earlier one up to step ``keep``.

        A torn last line, of a process that was killed, is dropped; any other line that is no record
        is moved to a file of its own.
        """
        path = Path(path)
        lines, damaged = _lines(path, keep) if keep and path.exists() else ([], [])
        self.records = [record for _, record in lines]
        self.damaged: Path | None = None
        if damaged:
            self.damaged = path.with_name(f"{path.name}.damaged")
            regular = self.damaged.is_file() and not self.damaged.is_symlink()
            earlier = self.damaged.read_bytes() if regular else b""
            write_atomic(self.damaged, earlier + b"".join(damaged))
        write_atomic(path, b"".join(line for line, _ in lines))
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
        self._waiting: list[bytes] = []
        self._flushed = time.monotonic()

    def append(self, record: Record, *, flush: bool) -> Record:
        """Write a record, within a second or with flush at once; return it as a reader finds it.

        Raises:
            OSError: if it cannot be written; then it is not in the file.
        """
        written = _finite(record)
        self.records.append(written)
        before = len(self._waiting)
        try:
            self._waiting.append(json.dumps(written, allow_nan=False).encode() + b"\n")
            if flush or time.monotonic() > self._flushed + 1:
                self.flush()
        except BaseException:
            del self._waiting[before:]
            raise
        return written

    def flush(self) -> None:
        """Hand all records to the operating system: they outlive this process.

        Raises:
            OSError: if they do not fit; then the file is as it was, and they still wait.
        """
        end = os.fstat(self._file).st_size
        waiting = self._waiting
        data = memoryview(b"".join(waiting))
        try:
            while data:
                data = data[os.write(self._file, data) :]
            self._waiting = []
        except BaseException:
            self._waiting = waiting
            os.ftruncate(self._file, end)
            raise
        self._flushed = time.monotonic()

    def sync(self) -> None:
        """Have what was flushed on the disk: it outlives the machine's power."""
        os.fsync(self._file)

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._file == -1:
            return
        try:
            self.flush()
        finally:
            descriptor, self._file = self._file, -1
            os.close(descriptor)


def _lines(path: Path, last_step: int) -> tuple[list[tuple[bytes, Record]], list[bytes]]:
    """Return the lines up to a step with their records, and the lines that are none."""
    kept: dict[int, tuple[bytes, Record]] = {}
    damaged = []
    for line in read_bytes(path, max_bytes=MAX_BYTES).splitlines(keepends=True):
        try:
            record = _record_in(line, path)
        except FileFormatError:
            if line.endswith(b"\n"):
                damaged.append(line)
        else:
            if record["step"] <= last_step:
                kept[record["step"]] = (line.rstrip(b"\r\n") + b"\n", record)
    return [kept[step] for step in sorted(kept)], damaged


def _record_in(line: bytes, where: str | Path) -> Record:
    record = parse_json(line, where)
    if not isinstance(record, dict) or type(record.get("step")) is not int or record["step"] < 1:
        raise FileFormatError(where, "is no record of a step; remove it")
    return record


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
        try:
            records.append(_record_in(line, f"{path} line {number}"))
        except FileFormatError:
            if number < len(lines) or line.endswith(b"\n"):
                raise
    return records
