"""``functional-lm train``."""

import dataclasses
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from .. import pytree
from ..contract import expect_int
from ..reports.event_files import TensorBoardWriter, expect_tensorboard
from ..runs import Interruption, Intervals, Session
from ..runs.folder import expect_free
from ..runs.lock import run_lock
from ..training import Experiment, TrainConfig
from .display import TrainingDisplay, clock, curve, smooth
from .flags import Sizes, Source, expect_known, given_sizes, preset_defaults, value_of

EVENTS = "tensorboard"
"""The folder of a run's event files."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a language model on a text, and save it.

    A run can be stopped at any time, by Ctrl-C too, and goes on with --resume.

    Attributes:
        training: how to train.
        sizes: the model.
        source: what to train, and on what.
        intervals: how often to do what besides.
        config: a TOML or JSON file of settings, such as a run's config.json; flags override it.
        out: the folder to write, which must not exist. Not given: runs/<time>.
        resume: instead: the folder of a run to go on with. It keeps its settings, but may become
            longer, with --steps or --epochs.
        overwrite: replace the run that is in the folder of --out, with all that the folder holds.
        log_every: steps between two lines where the output is no terminal.
        tensorboard: also write event files for TensorBoard, to the folder tensorboard of the run.
    """

    training: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    source: Source = dataclasses.field(default_factory=Source)
    intervals: Intervals = dataclasses.field(default_factory=Intervals)
    config: Path | None = None
    out: Path | None = None
    resume: Path | None = None
    overwrite: bool = False
    log_every: int = 100
    tensorboard: bool = False

    @classmethod
    def defaults(cls, arguments: list[str]) -> "Train":
        """Return the settings that --preset, --config and --resume set."""
        training, sizes, source, others = preset_defaults(arguments)
        names = {field.name for field in dataclasses.fields(Intervals)}
        intervals = Intervals(**{name: others.pop(name) for name in names & others.keys()})
        run = value_of("--resume", arguments)
        if run is not None:
            with run_lock(run):  # a second run on a folder ends before it does anything
                pass
        return cls(training, sizes, source, intervals, **expect_known(others, cls))

    def __post_init__(self) -> None:
        """Check what has no other place."""
        expect_int("log_every", self.log_every)
        if self.resume is not None:
            for name in ("config", "out"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"a resumed run has its own folder and settings: got --{name} and "
                        f"--resume {self.resume}; leave one out"
                    )

    def run(self) -> int:
        """Train; return the exit status."""
        if self.out is not None:
            expect_free(self.out, overwrite=self.overwrite)
        if self.tensorboard:
            expect_tensorboard()
        model = self.source.load_model()
        corpus = self.source.load_text()
        experiment = Experiment.build(
            corpus.text, self.training, model=model, sizes=given_sizes(self.sizes)
        )
        params = experiment.rehearse()
        config = experiment.config
        name = self.source.model or f"{config.n_layers} blocks of width {config.d_model}"
        size = f"{self.training.batch_size} × {self.training.seq_len} tokens"
        to_train, held_out = len(experiment.tokens), len(experiment.held_out)
        print(f"text        {corpus.source}")
        print(f"tokens      {to_train:,} to train on, {held_out:,} held out")
        print(f"vocabulary  {experiment.tokenizer.vocab_size} characters")
        print(f"model       {name}: {pytree.count(params):,} parameters")
        run = f"run         {experiment.steps:,} steps of {size}, written to"
        if self.resume is not None:
            session = Session.resume(
                self.resume, experiment, params=params, intervals=self.intervals
            )
            print(f"{run} {session.folder}")
            finished = session.state.step >= experiment.steps
            more = ", its last: to train longer pass --steps" if finished else ""
            print(f"resumed     after step {session.state.step:,}{more}", flush=True)
            for note in session.notes:
                print(f"warning: {note}", file=sys.stderr)
        else:
            session = Session.start(
                self.out,
                experiment,
                params=params,
                intervals=self.intervals,
                settings={
                    "text": self.source.record(corpus),
                    "output": {"log_every": self.log_every, **dataclasses.asdict(self.intervals)},
                },
                model_file=self.source.model,
                overwrite=self.overwrite,
            )
            print(f"{run} {session.folder}", flush=True)
        return self._train(session)

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
                    f"functional-lm train: cannot save: {error}; the checkpoints before are whole: "
                    f"mend that, then functional-lm train --resume {session.folder}",
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
                    f"to go on: functional-lm train --resume {session.folder}"
                )
        return interruption.status

    def _events(self, session: Session) -> AbstractContextManager[TensorBoardWriter | None]:
        if not self.tensorboard:
            return nullcontext()
        return TensorBoardWriter(session.folder / EVENTS, purge_step=session.state.step + 1)


def _summarise(session: Session, first: int, seconds: float) -> None:
    """Print curves, a sample and figures."""
    records = [record for record in session.records if record["loss"] is not None]
    losses = smooth([record["loss"] for record in records])
    evaluated = [record for record in records if record.get("val_loss") is not None]
    steps = [record["step"] for record in records]
    series: dict[str, Any] = {"loss": (steps, losses)}
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
    said = f"{session.state.step - first:,} steps in {clock(seconds)}, loss {losses[-1]:.3f}"
    if evaluated:
        said += f", validation {evaluated[-1]['val_loss']:.3f}"
    if session.best_step is not None:
        said += f", the best {session.best_loss:.3f}"
    print(said)
