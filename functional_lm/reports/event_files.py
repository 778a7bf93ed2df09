"""Event files for TensorBoard. They need tensorboardX, from the extra log.

A record becomes one event with all its figures. In a notebook::

    with TensorBoardWriter("runs/my-run") as writer:
        for step in experiment.run():
            writer.append(record_of(step, lr=schedule(step.state.step - 1), tokens=1024))

and then ``tensorboard --logdir runs``.
"""

import importlib.util
import math
import time
from collections.abc import Iterator
from pathlib import Path

from ..runs.metrics import Record
from ..runs.records import number, statistics_of

TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "bits_per_byte": "bits_per_byte/validation",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
}
"""The tags of figures; a statistic is ``update_ratio/blocks.0.mixer.qkv.weight``."""

TEXTS = ("sample", "fault")

FLUSH_SECONDS = 10.0


class TensorBoardWriter:
    """Appends records to an event file of its own. Figures that are not finite are left out.

    It writes through tensorboardX's `EventsWriter`, in the thread of the caller: a `SummaryWriter`
    has a thread of its own, and blocks for ever once that has died of a full disk.
    """

    def __init__(self, folder: str | Path, purge_step: int | None = None) -> None:
        """Start a new event file beside those of earlier parts of the run.

        Args:
            folder: made if need be.
            purge_step: the next step of a resumed run: TensorBoard hides what earlier files hold
                of it and of later steps.

        Raises:
            ImportError: without tensorboardX.
            OSError: if the file cannot be written.
        """
        expect_tensorboard()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files by name, so those of one second must sort by time.
        self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(
                Event(wall_time=time.time(), step=purge_step, session_log=start)
            )
        self._flush()

    def append(self, record: Record) -> None:
        """Write a record; it is on disk within ten seconds, at once if it has a validation loss."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import text

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record)]
        for name in TEXTS:
            if isinstance(record.get(name), str):
                indented = "\n".join("    " + line for line in record[name].split("\n"))
                values.extend(text(name, indented).value)  # verbatim in Markdown
        summary = Summary(value=values)
        self._events.write_event(Event(wall_time=time.time(), step=record["step"], summary=summary))
        if "val_loss" in record or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def close(self) -> None:
        """Flush all records to disk and close the file."""
        self._events.close()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _flush(self) -> None:
        self._events.flush()
        self._flushed = time.monotonic()


def expect_tensorboard() -> None:
    """Require tensorboardX.

    Raises:
        ImportError: without it.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ImportError("event files need tensorboardX: pip install 'functional-lm[log]'")


def _scalars(record: Record) -> Iterator[tuple[str, float]]:
    """Yield ``(tag, value)`` for each finite figure."""
    scalars = [(tag, number(record.get(name))) for name, tag in TAGS.items()]
    for group, figures in statistics_of(record).items():
        scalars += [(f"{group}/{leaf}", value) for leaf, value in figures.items()]
    return (pair for pair in scalars if math.isfinite(pair[1]))
