"""Progress of a run, live on a terminal and as plain lines elsewhere; curves and pictures."""

import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..files import write_atomic
from ..runs import Record
from ..runs.records import clock, final_loss
from .output import print
from .runs import PROGRAM


class TrainingDisplay:
    """Shows the progress of a run: a bar on a terminal, else a line now and then."""

    def __init__(self, steps: int, log_every: int, *, first: int = 0) -> None:
        """Start the clock, after the first steps of a resumed run."""
        self._steps = steps
        self._first = first
        self._log_every = log_every
        self._losses: list[float] = []
        self._validation: float | None = None
        self._start = time.perf_counter()
        self._console = Console(file=sys.stdout, highlight=False)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=16),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=steps, completed=first, figures="")

    def __enter__(self) -> "TrainingDisplay":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def loss(self) -> float:
        """The mean loss of the last steps."""
        return final_loss(self._losses)

    def update(self, record: Record) -> None:
        """Show a step; on a terminal also a line for each evaluation."""
        step = record["step"]
        if record["loss"] is not None:
            self._losses.append(record["loss"])
        if "fault" in record:
            self._console.print(f"left out: {record['fault']}", markup=False, soft_wrap=True)
        self._validation = record.get("val_loss", self._validation)
        figures = f"loss {self.loss:.3f}"
        if self._validation is not None:
            figures += f"  val {self._validation:.3f}"
        figures += f"  {record['tokens_per_second']:,} tok/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
            if "val_loss" in record:
                self._bar.console.print(f"step {step:,}  {figures}")
        elif step % self._log_every == 0 or step == self._steps or "val_loss" in record:
            elapsed = time.perf_counter() - self._start
            left = elapsed / (step - self._first) * (self._steps - step)
            print(
                f"step {step:,}/{self._steps:,}  {figures}  lr {record['lr']:.1e}  "
                f"{clock(left)} left",
                flush=True,
            )


def wrapped(label: str, text: str, indent: int) -> str:
    """Return a text of at most 80 columns behind a label, its lines indented alike."""
    return textwrap.fill(
        text,
        80,
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def curve(series: dict[str, tuple[Sequence[float], Sequence[float]]], **settings: Any) -> str:
    """Draw ``{name: (xs, ys)}`` with characters, as wide as the terminal but at most 80 columns."""
    from uniplot import plot_to_string

    drawn = plot_to_string(
        xs=[xs for xs, _ in series.values()],
        ys=[ys for _, ys in series.values()],
        legend_labels=list(series),
        lines=True,
        width=max(20, min(66, shutil.get_terminal_size().columns - 14)),
        height=12,
        color=False,
        **settings,
    )
    lines = drawn if isinstance(drawn, str) else "\n".join(drawn)
    return "\n".join(line.rstrip() for line in lines.splitlines())


def write_rate_picture(path: Path, lines: Mapping[str, Any], **settings: Any) -> None:
    """Write a `rate_picture` to a .png file, or say what that needs."""
    from ..reports.plots import encode, rate_picture

    try:
        figure = rate_picture(lines, **settings)
    except ImportError as error:
        print(error)
    else:
        write_atomic(path, encode(figure, path.suffix, creator=PROGRAM))
