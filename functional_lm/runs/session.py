"""A run in its folder: trained, measured and saved, so that it can be killed at any instant.

What has been saved is whole, and what follows from it is the same every time: a run that was
killed and resumed, however often, ends with the bits of one that was not.

In a notebook::

    with Session.start("runs/first", Experiment.build(text, TrainConfig(steps=500))) as session:
        for record in session.train():
            print(record["step"], record["loss"])

and after a crash the same with ``Session.resume``.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .. import pytree
from ..contract import Tree, expect_int
from ..files import FileFormatError, remove_stale, write_atomic
from ..generation import temperature
from ..training.experiment import Experiment
from ..training.loop import TrainState, TrainStep
from ..training.statistics import statistics_of
from .background import BackgroundWriter
from .checkpoint import CHECKPOINTS, keep_last, latest_state, save_state
from .folder import (
    BEST_FILE,
    LAST_FILE,
    METRICS_FILE,
    SAMPLE_FILE,
    change_settings,
    new_run,
    save_run,
    save_weights,
)
from .identity import expect_same_run, identity
from .lock import run_lock
from .metrics import MetricsFile, Record, record_of

MAX_CONSECUTIVE_ERRORS = 3
"""Batches in a row without a finite loss and gradient that a run leaves out before it ends."""


SAMPLE_LENGTH = 300


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How often to validate, checkpoint, record statistics and sample.

    Attributes:
        eval_every: steps between two validations.
        eval_tokens: held-out tokens in a validation, the same ones each time.
        checkpoint_every: steps between two checkpoints.
        statistics_every: steps between two records of the statistics of gradients, updates and
            activations; the first is of step 1. 0: none.
        sample_every: steps between two samples. 0: only one at the end.
    """

    eval_every: int = 250
    eval_tokens: int = 2**17
    checkpoint_every: int = 100
    statistics_every: int = 100
    sample_every: int = 0

    def __post_init__(self) -> None:
        expect_int("eval_every", self.eval_every)
        expect_int("eval_tokens", self.eval_tokens)
        expect_int("checkpoint_every", self.checkpoint_every)
        expect_int("statistics_every", self.statistics_every, minimum=0)
        expect_int("sample_every", self.sample_every, minimum=0)


class _Progress(NamedTuple):
    """All that a step changes in a session, so that it changes at once or not at all."""

    state: TrainState
    best_step: int | None = None
    best_loss: float = math.inf

    @property
    def steps(self) -> tuple[int, int | None]:
        """The step and the best one, which tell whether there is something to save."""
        return self.state.step, self.best_step


class Session:
    """A run under way, from `start` or `resume`; until it is closed, its folder is its own.

    Attributes:
        folder: of the run.
        notes: what a resumed run should tell its user.
        on_validation: called with the share of a validation that is done.
    """

    def __init__(
        self, folder: Path, experiment: Experiment, intervals: Intervals, state: TrainState
    ) -> None:
        """Make a session of a folder that is there."""
        self.folder = folder
        self.experiment = experiment
        self.intervals = intervals
        self.notes: list[str] = []
        self.on_validation: Callable[[float], object] = lambda share: None
        self._progress = _Progress(state)
        self._saved = self._progress.steps
        self._identity = identity(experiment)
        self._writer = BackgroundWriter()
        self._resources = contextlib.ExitStack()

    @property
    def state(self) -> TrainState:
        """The state after the last whole step."""
        return self._progress.state

    @property
    def records(self) -> list[Record]:
        """The records of all steps so far."""
        return self._metrics.records

    @property
    def best_step(self) -> int | None:
        """The step with the lowest validation loss so far, or None."""
        return self._progress.best_step

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far, or infinity."""
        return self._progress.best_loss

    @classmethod
    def start(
        cls,
        folder: str | Path | None,
        experiment: Experiment,
        *,
        params: Tree = None,
        intervals: Intervals | None = None,
        settings: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> "Session":
        """Make the folder of a run, which appears as a whole, with a checkpoint of step 0.

        Args:
            folder: to make. None: a new one, runs/<time>.
            experiment: what to train.
            params: the first parameters, from `Experiment.rehearse`; drawn if not given.
            intervals: how often to do what.
            settings: what else config.json shall hold.
            overwrite: replace the run that is there.

        Raises:
            FileExistsError: if there is something in the folder, and not overwrite.
            RunLockedError: if another process trains there, or starts to.
            OSError: if it cannot be written; nothing is left behind.
        """
        state = experiment.init_state(params)
        session = cls(Path(folder or ""), experiment, intervals or Intervals(), state)
        with (
            session._closed_on_error(),
            new_run(folder, session._resources, overwrite=overwrite) as (session.folder, new),
        ):
            save_run(
                new,
                state.params,
                experiment.model,
                experiment.tokenizer,
                settings={
                    "training": experiment.in_force,
                    **(settings or {}),
                    "given": experiment.given,
                },
            )
            save_state(new, state, metadata=session._metadata())
            write_atomic(new / METRICS_FILE, b"")
        with session._closed_on_error():
            session._open_metrics()
        return session

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        experiment: Experiment,
        *,
        intervals: Intervals | None = None,
    ) -> "Session":
        """Resume from the newest checkpoint that can be read.

        Args:
            folder: of the run.
            experiment: built as it was for `start`; only its steps or epochs may differ.
            intervals: how often to do what.

        Raises:
            RunLockedError: if another process trains there.
            FileFormatError: if no checkpoint can be read, or they hold another model.
            ValueError: for another text or other settings.
        """
        folder, notes = Path(folder), list[str]()
        with contextlib.ExitStack() as resources:
            resources.enter_context(run_lock(folder))
            for path in folder.iterdir():
                if path.is_symlink():  # what is written here must not land elsewhere
                    raise FileFormatError(path, "must not be a link; move its target here")
            remove_stale(folder)
            remove_stale(folder / CHECKPOINTS)
            state, metadata = latest_state(
                folder,
                experiment.init_state,
                notes.append,
                lambda metadata: notes.extend(expect_same_run(metadata.get("run", {}), experiment)),
            )
            change_settings(folder, training=experiment.in_force, given=experiment.given)
            session = cls(folder, experiment, intervals or Intervals(), state)
            session.notes = notes
            best = metadata["best_step"], metadata["best_loss"]
            session._progress = _Progress(state, *([] if best[0] is None else best))
            session._saved = session._progress.steps
            keep_last(folder, best[0])  # a kill may have come between a save and this
            session._resources = resources.pop_all()
        with session._closed_on_error():
            session._open_metrics()
        return session

    def train(self) -> Iterator[Record]:
        """Train to the end, yielding the record of each step.

        A step is a transaction: whatever interrupts it, the run is as it was before or after it.

        Raises:
            FloatingPointError: after `MAX_CONSECUTIVE_ERRORS` batches in a row without a finite
                loss and gradient, at the next.
            OSError: if something cannot be written; earlier checkpoints are intact.
        """
        if self.records and self.records[-1]["step"] > self.state.step:
            self._metrics.close()  # with the record of a step that was interrupted
            self._open_metrics()
        if self.best_step != self._saved[1]:
            self._save()
        for step in self._steps():
            self._writer.check()
            record, state, progress = self._record(step), step.state, self._progress
            record = self._metrics.append(record, flush="val_loss" in record)
            if "sample" in record:
                self._write_samples()
            val_loss = record.get("val_loss")
            if val_loss is not None and val_loss < progress.best_loss:
                self._progress = _Progress(state, state.step, val_loss)
                self._save()
            else:
                self._progress = progress._replace(state=state)
                if state.step % self.intervals.checkpoint_every == 0:
                    self._save()
            yield record

    def close(self) -> None:
        """Save where the run is and release the folder.

        Raises:
            OSError: if something cannot be written, now or earlier.
        """
        with self._resources:
            self._writer.check()
            params = self.state.params
            if self._saved[0] != self.state.step:
                self._save()
            self._writer.submit("last", lambda: self._save_weights(LAST_FILE, params))
            if self.best_step is None and not pytree.first_not_finite(params):
                best = self.experiment.averaged(self.state)
                self._writer.submit("best", lambda: self._save_weights(BEST_FILE, best))
            self._writer.wait()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close it; an error on the way out is not hidden by one of saving."""
        try:
            self.close()
        except Exception:
            if error is None:
                raise

    def _repr_html_(self) -> str | None:
        """Show the curves so far in a notebook."""
        from ..reports.plots import as_html

        return as_html(self.folder.name, self.records)

    def _steps(self) -> Iterator[TrainStep]:
        try:
            yield from self.experiment.run(
                self.experiment.whole(self.state),
                max_consecutive_errors=MAX_CONSECUTIVE_ERRORS,
                inspect=self._inspect,
                inspect_at=self._inspected,
            )
        except FloatingPointError as error:
            weights = f"the weights before are in {self.folder / LAST_FILE}"
            if fault := pytree.first_not_finite(self.state.params):
                weights = f"the last update spoiled the weights, {fault}"
            raise FloatingPointError(
                f"{MAX_CONSECUTIVE_ERRORS + 1} batches in a row without a finite gradient: "
                f"{error}; {weights}: look at the data, or start anew with a lower learning rate"
            ) from None

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._resources.close()
            raise

    def _open_metrics(self) -> None:
        """Begin the metrics with the steps made so far."""
        step = self.state.step
        self._metrics = MetricsFile(self.folder / METRICS_FILE, keep=step)
        self._resources.callback(self._metrics.close)
        if self._metrics.damaged:
            self.notes.append(
                f"{METRICS_FILE} has lines that cannot be read: they are kept in "
                f"{self._metrics.damaged.name}"
            )
        if len(self.records) < step:
            self.notes.append(f"{METRICS_FILE} has only {len(self.records)} of {step} steps")

    def _record(self, step: TrainStep) -> Record:
        """Return the figures of a step, with a validation and a sample where they are due."""
        number, experiment = step.state.step, self.experiment
        updates_before = number - step.state.total_notfinite - (not step.fault)
        record = record_of(step, lr=experiment.schedule(updates_before), tokens=step.inputs.size)
        last, every = number == experiment.steps, self.intervals.sample_every
        validates = last or number % self.intervals.eval_every == 0
        samples = last or (every and number % every == 0)
        if validates or samples:
            averaged = experiment.averaged(step.state)
        if validates:
            limit = self.intervals.eval_tokens
            record["val_loss"] = experiment.validation_loss(
                averaged, limit=limit, progress=self.on_validation
            )
            if (bits := experiment.bits_per_byte(record["val_loss"], limit=limit)) is not None:
                record["bits_per_byte"] = bits
        if samples and not pytree.first_not_finite(step.state.params):
            record["sample"] = self._sample(averaged)
        return record

    def _sample(self, params: Tree) -> str:
        """Return a text that the model writes from the tokenizer's default prompt."""
        text = self.experiment.sample(
            params,
            self.experiment.tokenizer.default_prompt,
            key=(self.experiment.settings.seed, 3),
            max_new_tokens=SAMPLE_LENGTH,
            transform=temperature(0.8),
        )
        return text.strip()

    def _write_samples(self) -> None:
        texts = [f"--- step {r['step']}\n{r['sample']}\n" for r in self.records if "sample" in r]
        write_atomic(self.folder / SAMPLE_FILE, "\n".join(texts))

    def _inspected(self, number: int) -> bool:
        every = self.intervals.statistics_every
        return bool(every) and (number == 1 or number % every == 0)

    def _inspect(self, number: int, params: Tree, grads: Tree, updates: Tree, tokens: Any) -> Any:
        return statistics_of(self.experiment.model, params, grads, updates, tokens)

    def _save(self) -> None:
        """Have a checkpoint written; before it, if the step is a new best, its weights alone."""
        progress, metadata = self._progress, self._metadata()
        state, best_step = self.experiment.whole(progress.state), progress.best_step
        is_best = best_step != self._saved[1]
        self._metrics.flush()  # what the checkpoint stands on must not be lost with this process

        def write() -> None:
            self._metrics.sync()
            if is_best:
                self._save_weights(BEST_FILE, state.averaged)
            save_state(self.folder, state, metadata=metadata, best_step=best_step)

        self._writer.submit("best" if is_best else "checkpoint", write)
        self._saved = progress.steps

    def _save_weights(self, name: str, params: Tree) -> None:
        save_weights(self.folder / name, params, self.experiment.model, self.experiment.tokenizer)

    def _metadata(self) -> dict[str, Any]:
        settings = self.experiment.settings
        return {
            "run": self._identity,
            "key": [settings.seed],
            "batch": {
                "next": self.state.step,
                "of": f"{settings.windows} windows" if settings.epochs is None else "epochs",
            },
            "best_step": self.best_step,
            "best_loss": None if self.best_step is None else self.best_loss,
        }
