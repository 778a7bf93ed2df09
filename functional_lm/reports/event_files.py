"""Event files that TensorBoard shows. They need tensorboardX, from the extra log.

A record becomes one event with all its figures. In a notebook::

    with TensorBoardWriter("runs/my-run") as writer:
        for step in experiment.run():
            writer.append(record_of(step, lr=schedule(step.state.step - 1), tokens=1024))

and then ``tensorboard --logdir runs``.
"""

import importlib.util
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runs.metrics import Record

TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
}
"""What a figure of a record is called; a statistic is ``update_ratio/blocks.0.attention.qkv``."""

TEXTS = ("sample", "fault")

FLUSH_SECONDS = 10.0


class TensorBoardWriter:
    """Appends records to an event file of its own. A figure that is not finite is left out."""

    def __init__(self, folder: str | Path, purge_step: int | None = None) -> None:
        """Start a new event file, beside those of earlier parts of the run.

        Args:
            folder: where to; it is made if need be.
            purge_step: the first step that is to come, where a run is resumed: what earlier files
                hold of it, and of steps after it, is not shown.

        Raises:
            ImportError: without tensorboardX.
            OSError: if the file cannot be written.
        """
        expect_tensorboard()
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = RecordWriter(str(_new_file(folder)))
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._file.flush()

    def append(self, record: Record) -> None:
        """Write a record; it is on the disk after ten seconds, or at once if it was evaluated."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import text

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record)]
        for name in TEXTS:
            if isinstance(record.get(name), str):
                values.extend(text(name, _verbatim(record[name])).value)
        summary = Summary(value=values)
        self._write(Event(wall_time=time.time(), step=record["step"], summary=summary))
        if "val_loss" in record or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Have all records on the disk, and close the file."""
        self._file.flush()
        self._file.close()

    def __enter__(self) -> "TensorBoardWriter":
        """Return the writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def _write(self, event: Any) -> None:
        self._file.write(event.SerializeToString())


def expect_tensorboard() -> None:
    """Require tensorboardX.

    Raises:
        ImportError: without it.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ImportError("event files need tensorboardX: pip install 'functional-lm[log]'")


def _new_file(folder: Path) -> Path:
    """Return a name for a file: in the order of names, TensorBoard takes files to be written."""
    start = f"events.out.tfevents.{time.time():010.0f}"
    names = (folder / f"{start}.{number:03}" for number in itertools.count())
    return next(path for path in names if not path.exists())


def _scalars(record: Record) -> Iterator[tuple[str, float]]:
    """Yield ``(tag, value)`` for each finite figure."""
    found = [(tag, record.get(name)) for name, tag in TAGS.items()]
    for group, figures in (record.get("statistics") or {}).items():
        found += [(f"{group}/{leaf}", value) for leaf, value in figures.items()]
    for tag, value in found:
        if value is not None and math.isfinite(value):
            yield tag, value


def _verbatim(text: str) -> str:
    """Return a text as the Markdown that shows it as it is."""
    return "\n".join("    " + line for line in text.split("\n"))
