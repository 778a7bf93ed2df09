"""What the commands show: a run's progress, that of anything slow, curves and pictures."""

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..files import write_atomic
from ..runs import Record, Session
from ..runs.records import clock, final_loss, series
from .output import escaped, print
from .runs import PROGRAM

T = TypeVar("T")

PLAIN_WIDTH = 80
"""Of lines that do not go to a terminal."""

LEAST_FINAL, FINAL_SHARE = 10.0, 0.1
"""Seconds that a final evaluation may always take, and its share of the time of the training."""

SILENCE = 10.0
"""Seconds between two lines about something slow, where there is no terminal."""


class TrainingDisplay:
    """Shows the progress of a run: a line for each validation, and below it on a terminal a bar.

    Elsewhere there is a line every ``log_every`` steps too.
    """

    def __init__(self, session: Session, log_every: int, *, final_tokens: int = 0) -> None:
        """Start the clock.

        Args:
            session: to show, before its next step.
            log_every: steps between two lines.
            final_tokens: those to evaluate after the last step, if that does not take too long.
        """
        self._session, self._experiment = session, session.experiment
        self._log_every, self._final_tokens = log_every, final_tokens
        self._first = session.state.step
        self._losses = list(series(session.records, "loss").values)
        self._validated_last: Record = {}
        self._start = self._validation_start = time.perf_counter()
        self._spent, self._validated = 0.0, 0  # seconds and tokens of all validations
        self._console = Console(file=sys.stdout, highlight=False)
        bar = TextColumn("{task.fields[figures]}"), BarColumn(None)
        self._bar = Progress(*bar, console=self._console, expand=True, transient=True)
        self._task = self._bar.add_task("", total=self._experiment.steps, figures="")
        session.on_validation = self._validating

    def __enter__(self) -> "TrainingDisplay":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        if self._console.is_terminal:
            self._bar.stop()

    def update(self, record: Record) -> None:
        """Show a step, its validation and its sample."""
        step = record["step"]
        if record["loss"] is not None:
            self._losses.append(record["loss"])
        if "fault" in record:
            self._print(f"skipped: {record['fault']}")
        if record.get("val_loss") is not None:
            self._validated_last = record
        terminal = self._console.is_terminal
        if terminal:
            figures = _fitting(self._figures(record, live=True), self._console.width - 6)
            self._bar.update(self._task, completed=step, figures=figures)
        logged = step % self._log_every == 0 or step == self._experiment.steps
        if "val_loss" in record or (logged and not terminal):
            width = self._console.width if terminal else PLAIN_WIDTH
            self._print(_fitting(self._figures(record), width))
        if "sample" in record:
            self._print(f"\nsample after step {step:,}:\n{record['sample']}\n")

    def _figures(self, record: Record, *, live: bool = False) -> list[tuple[int, str]]:
        """Return the parts of a line, each with its rank: the first ranks are shown for sure."""
        step, steps = record["step"], self._experiment.steps
        validated = self._validated_last if live else record
        loss, bits = validated.get("val_loss"), validated.get("bits_per_byte")
        parts = [(0, f"step {step:,}/{steps:,}"), (1, f"loss {final_loss(self._losses):.3f}")]
        if loss is not None:
            parts.append((2, f"val {loss:.3f}"))
        if bits is not None:
            parts.append((8 if live else 3, f"{bits:.3f} bits/byte"))
        parts += [
            (5, f"lr {record['lr']:.1e}"),
            (6, f"{record['tokens_per_second']:,} tok/s"),
            (7, clock(time.perf_counter() - self._start)),
        ]
        return parts + [(4, f"{clock(self.seconds_left(step))} left")] * (step < steps)

    def seconds_left(self, step: int) -> float:
        """Return the seconds from a step to the end, with all validations."""
        steps, every = self._experiment.steps, self._session.intervals.eval_every
        validations = steps // every + (steps % every > 0) - step // every
        seconds = (steps - step) * self._step_seconds(step)
        seconds += validations * self._eval_tokens * self._token_seconds(step)
        elapsed = time.perf_counter() - self._start
        return seconds + self.final_seconds(step, elapsed + seconds)

    def final_seconds(self, step: int, training: float) -> float:
        """Return the seconds of the final evaluation, 0 if they are too many for a training."""
        seconds = self._final_tokens * self._token_seconds(step)
        return seconds if seconds <= max(LEAST_FINAL, FINAL_SHARE * training) else 0.0

    def _step_seconds(self, step: int) -> float:
        elapsed = time.perf_counter() - self._start - self._spent
        return max(0.0, elapsed) / max(1, step - self._first)

    def _token_seconds(self, step: int) -> float:
        """Return how long it takes to evaluate a token."""
        if self._validated:
            return self._spent / self._validated
        settings = self._experiment.settings  # a third of a step is its forward
        return self._step_seconds(step) / 3 / (settings.batch_size * settings.seq_len)

    @property
    def _eval_tokens(self) -> int:
        return min(self._session.intervals.eval_tokens, len(self._experiment.held_out))

    def _validating(self, share: float) -> None:
        now = time.perf_counter()
        if share == 0:
            self._validation_start = now
        elif share == 1:
            self._spent += now - self._validation_start
            self._validated += self._eval_tokens
        step = self._session.state.step + 1
        figures = f"step {step:,}/{self._experiment.steps:,}  validating {share:.0%}"
        self._bar.update(self._task, figures=figures)

    def _print(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(escaped(text), markup=False, soft_wrap=True)
        else:  # where a closed pipe must be an error
            print(text, flush=True)


class Waiting:
    """Shows on stderr how much of something slow is done and how long the rest takes.

    On a terminal it is a bar that goes away, elsewhere a line every ten seconds.
    """

    def __init__(
        self, what: str, *, start: float | None = None, part: tuple[int, int] = (0, 1)
    ) -> None:
        """Start the clock.

        Args:
            what: is done, in a few words.
            start: when the whole work began, by `time.perf_counter`. Not given: now.
            part: which part of it this is, from 0 on, and of how many equal ones.
        """
        self._what, self._part, self._shown = what, part, time.perf_counter()
        self._start = self._shown if start is None else start
        console = Console(file=sys.stderr, highlight=False)
        self._bar = Progress(
            *(TextColumn("{task.description}"), BarColumn(None)),
            TextColumn("{task.percentage:.0f}%  {task.fields[left]}"),
            console=console,
            expand=True,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=1.0, left="")

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def __call__(self, share: float) -> None:
        """Show the share of this part that is done."""
        now, share = time.perf_counter(), (self._part[0] + share) / self._part[1]
        left = clock((now - self._start) * (1 - share) / share) + " left" if share > 0 else ""
        self._bar.update(self._task, completed=share, left=left)
        if self._bar.console.is_terminal:
            self._bar.start()
        elif now > self._shown + SILENCE:
            self._shown = now
            print(f"{self._what}: {share:.0%}, {left}", file=sys.stderr, flush=True)


class Activities:
    """Shows activities that follow each other, each by its name, as `Waiting` does."""

    def __init__(self) -> None:
        self._what, self._waiting = "", Waiting("")

    def __call__(self, what: str, share: float) -> None:
        """Show which share of an activity is done; at one it is over."""
        if what != self._what:
            self._waiting.__exit__()
            self._what, self._waiting = what, Waiting(what)
        self._waiting(share)
        if share >= 1:
            self._waiting.__exit__()
            self._what = ""


def watched(what: str, parts: Iterable[tuple[float, T]]) -> Iterator[T]:
    """Yield the second of each pair; show the first, the share of the work that is done."""
    with Waiting(what) as waiting:
        for share, part in parts:
            waiting(share)
            yield part


def _fitting(parts: Sequence[tuple[int, str]], width: int) -> str:
    """Return the parts of the lowest ranks that fit, in their order.

    >>> _fitting([(0, "step 1"), (2, "lr 0.1"), (1, "loss 2")], 15)
    'step 1  loss 2'
    """
    shown: set[int] = set()
    for i in sorted(range(len(parts)), key=lambda i: parts[i][0]):
        if sum(len(parts[j][1]) + 2 for j in shown | {i}) - 2 <= width:
            shown.add(i)
    return "  ".join(parts[i][1] for i in sorted(shown))


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
    """Draw ``{name: (xs, ys)}`` with characters, as wide as the terminal."""
    from uniplot import plot_to_string

    drawn = plot_to_string(
        xs=[xs for xs, _ in series.values()],
        ys=[ys for _, ys in series.values()],
        legend_labels=list(series),
        lines=True,
        width=max(20, min(120, shutil.get_terminal_size().columns) - 14),
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
