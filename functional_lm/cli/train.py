"""``functional-lm train``."""

import dataclasses
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from rich.filesize import decimal

from .. import pytree
from ..contract import Tree, expect_fields, expect_int
from ..numerics import smooth
from ..reports.event_files import TensorBoardWriter, expect_tensorboard
from ..runs import Interruption, Intervals, Session
from ..runs.folder import expect_free
from ..runs.records import FINAL, clock, final_loss
from ..text import Corpus
from ..training import Experiment
from .display import TrainingDisplay, curve, wrapped
from .flags import Argument, C, Selection, Setup
from .output import print
from .runs import find_run

EVENTS = "tensorboard"
"""The folder of a run's event files."""


@dataclasses.dataclass(frozen=True)
class RunSelection(Selection):
    """The model, by name; it decides which other flags there are.

    Attributes:
        resume: the folder of a run to continue instead; only its steps or epochs may change.
    """

    resume: Annotated[Path | None, Argument("RUN", find_run, positional=False)] = None


@dataclasses.dataclass(frozen=True)
class Train(Setup[C]):
    """Train a language model on a text and save it.

    Stop a run at any time, with Ctrl-C for example, and continue it with --resume.

    Attributes:
        intervals: how often to validate, checkpoint, record statistics and sample.
        out: the folder to write, which must not exist. Not given: runs/<time>.
        overwrite: replace the run in the folder of --out, with everything in that folder.
        dry_run: print what would be trained, its memory and its time; write nothing.
        log_every: steps between two lines of output, where that is not a terminal.
        tensorboard: also write event files for TensorBoard to the run's folder tensorboard.
    """

    model: RunSelection
    intervals: Intervals
    out: Path | None = None
    overwrite: bool = False
    dry_run: bool = False
    log_every: int = 100
    tensorboard: bool = False

    def __post_init__(self) -> None:
        expect_fields(self, (expect_int, "log_every", {}))
        run = self.model.resume
        for name, value in (("config", self.model.config), ("out", self.out)):
            if run is not None and value is not None:
                raise ValueError(
                    f"a resumed run has its own folder and settings: got --{name} and "
                    f"--resume {run}; leave one out"
                )

    def run(self) -> int:
        """Train; return the exit status."""
        if self.out is not None:
            expect_free(self.out, overwrite=self.overwrite)
        if self.tensorboard:
            expect_tensorboard()
        corpus = self.source.load_text()
        experiment = self.experiment(corpus)
        params = experiment.rehearse()
        size = f"{self.training.batch_size} × {self.training.seq_len} tokens"
        to_train, held_out = len(experiment.tokens), len(experiment.held_out)
        print(f"text        {corpus.source}")
        print(f"tokens      {to_train:,} to train on, {held_out:,} held out")
        print(f"vocabulary  {experiment.tokenizer.vocab_size} {experiment.tokenizer.unit}s")
        print(f"model       {self.model.model}: {pytree.count(params):,} parameters")
        run = f"run         {experiment.steps:,} steps of {size}"
        if self.dry_run:
            print(run, flush=True)
            return _forecast(experiment, params, self.intervals)
        session = self._session(experiment, params, corpus)
        print(f"{run}, written to {session.folder}", flush=True)
        if self.model.resume is not None:
            finished = session.state.step >= experiment.steps
            more = ", its last; extend it with --steps" if finished else ""
            print(f"resumed     after step {session.state.step:,}{more}", flush=True)
        for note in session.notes:
            print(f"warning: {note}", file=sys.stderr)
        return self._train(session)

    def _session(self, experiment: Experiment, params: Tree, corpus: Corpus) -> Session:
        """Return a new or resumed session."""
        if self.model.resume is None:
            return Session.start(
                self.out,
                experiment,
                params=params,
                intervals=self.intervals,
                settings={
                    "text": self.source.record(corpus),
                    "output": {"log_every": self.log_every, **dataclasses.asdict(self.intervals)},
                },
                overwrite=self.overwrite,
            )
        return Session.resume(
            self.model.resume, experiment, params=params, intervals=self.intervals
        )

    def _train(self, session: Session) -> int:
        start, first = time.perf_counter(), session.state.step
        display = TrainingDisplay(session.experiment.steps, self.log_every, first=first)
        with Interruption() as interruption:
            try:
                with session, display, self._events(session) as events:
                    for record in session.train():
                        display.update(record)
                        if events is not None:
                            events.append(record)
                        if interruption.signal is not None:
                            break
            except BrokenPipeError:
                raise
            except OSError as error:
                print(
                    f"functional-lm train: cannot save: {error}. Earlier checkpoints are intact; "
                    f"fix this, then run functional-lm train --resume {session.folder}",
                    file=sys.stderr,
                )
                return 1
            if session.state.step > first:
                _summarise(session, first, time.perf_counter() - start)
            if interruption.signal is None:
                print(f"saved in {session.folder}; try: functional-lm generate {session.folder}")
            else:
                print(
                    f"interrupted: step {session.state.step:,} is saved; "
                    f"continue with functional-lm train --resume {session.folder}"
                )
        return interruption.status

    def _events(self, session: Session) -> AbstractContextManager[TensorBoardWriter | None]:
        if not self.tensorboard:
            return nullcontext()
        return TensorBoardWriter(session.folder / EVENTS, purge_step=session.state.step + 1)


def _forecast(experiment: Experiment, params: Tree, intervals: Intervals) -> int:
    """Print the settings of a run, and from two steps of it the memory and the time it takes."""
    settings = {**dataclasses.asdict(experiment.config), **dataclasses.asdict(experiment.settings)}
    given = [f"{name} {value}" for name, value in settings.items() if value is not None]
    print(wrapped("settings", ", ".join(given), 12))
    tokens, side = experiment.batch_at(0)
    first = {"targets": side["targets"][:1], "key": side["key"]}
    _, residuals = experiment.model.forward(params, tokens[:1], **first)
    parts = {
        "parameters": pytree.buffer_bytes(params),
        "optimizer state": pytree.buffer_bytes(experiment.optimizer.init(params)),
        "gradient": pytree.buffer_bytes(params),
        f"residuals of {len(tokens)} windows": len(tokens)
        * pytree.buffer_bytes(residuals, without=params),
    }
    print(f"memory      {decimal(sum(parts.values()))}")
    for name, size in parts.items():
        print(f"{decimal(size):>21} of {name}")
    steps = experiment.run()
    next(steps)
    start = time.perf_counter()
    next(steps, None)
    step = time.perf_counter() - start
    validations = -(-experiment.steps // intervals.eval_every)
    forward = step / 3 * len(experiment.held_out) / tokens.size  # a third of a step is forward
    total = clock(experiment.steps * step + validations * forward)
    print(f"time        {total} for {experiment.steps:,} steps of {1000 * step:.1f} ms")
    print("dry run     nothing was written")
    return 0


def _summarise(session: Session, first: int, seconds: float) -> None:
    """Print curves, a sample and figures."""
    records = [record for record in session.records if record["loss"] is not None]
    losses = [record["loss"] for record in records]
    evaluated = [record for record in records if record.get("val_loss") is not None]
    steps = [record["step"] for record in records]
    series: dict[str, Any] = {"loss": (steps, smooth(losses, FINAL))}
    if len(evaluated) > 1:
        series["validation"] = (
            [record["step"] for record in evaluated],
            [record["val_loss"] for record in evaluated],
        )
    if len(steps) > 1:
        print()
        print(curve(series))
    if "sample" in session.records[-1]:
        print(f"\n{session.records[-1]['sample']}\n")
    said = (
        f"{session.state.step - first:,} steps in {clock(seconds)}, loss {final_loss(losses):.3f}"
    )
    if evaluated:
        said += f", validation {evaluated[-1]['val_loss']:.3f}"
    if session.best_step is not None:
        said += f", the best {session.best_loss:.3f}"
    print(said)
