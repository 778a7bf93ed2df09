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
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Tree
from ..files import remove_stale, write_atomic
from ..training.experiment import Experiment
from ..training.loop import TrainState, TrainStep
from ..training.statistics import statistics_of
from .background import BackgroundWriter
from .checkpoints import CHECKPOINTS, keep_last, latest_state, save_state
from .folder import BEST_FILE, LAST_FILE, METRICS_FILE, change_settings, save_run, save_weights
from .identity import MAY_CHANGE, expect_same_run, identity
from .intervals import Intervals
from .lock import run_lock
from .metrics import MetricsFile, Record, record_of
from .new_run import new_run
from .samples import sample, write_samples

MAX_CONSECUTIVE_ERRORS = 3
"""Batches in a row without a finite loss and gradient that a run leaves out before it ends."""


class Session:
    """A run under way, from `start` or `resume`; until it is closed, its folder is its own.

    Attributes:
        state: after the last step.
        records: of all steps so far.
        best_step: the step with the lowest validation loss so far, or None.
        best_loss: that loss, or infinity.
        notes: what a resumed run should tell its user.
    """

    def __init__(
        self, folder: Path, experiment: Experiment, intervals: Intervals, state: TrainState
    ) -> None:
        """Make a session of a folder that is there."""
        self.folder = folder
        self.experiment = experiment
        self.intervals = intervals
        self.state = state
        self.records: list[Record] = []
        self.best_step: int | None = None
        self.best_loss = math.inf
        self.notes: list[str] = []
        self._identity = identity(experiment)
        self._saved_step = state.step
        self._writer = BackgroundWriter()
        self._resources = contextlib.ExitStack()

    @classmethod
    def start(
        cls,
        folder: str | Path,
        experiment: Experiment,
        *,
        intervals: Intervals | None = None,
        settings: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> "Session":
        """Make the folder of a run, which appears as a whole, with a checkpoint of step 0.

        Args:
            folder: to make.
            experiment: what to train.
            intervals: how often to do what.
            settings: what else config.json shall hold.
            overwrite: put it in the place of a run that is there.

        Raises:
            FileExistsError: if there is something in the folder, and not overwrite.
            RunLockedError: if another process trains there.
            OSError: if it cannot be written; nothing is left behind.
        """
        folder, state = Path(folder), experiment.init_state()
        session = cls(folder, experiment, intervals or Intervals(), state)
        with new_run(folder, overwrite=overwrite) as new:
            save_run(
                new,
                state.params,
                experiment.model,
                experiment.tokenizer,
                settings={"training": dataclasses.asdict(experiment.settings)} | (settings or {}),
            )
            save_state(new, state, metadata=session._metadata())
            write_atomic(new / METRICS_FILE, b"")
        with session._closed_on_error():
            session._resources.enter_context(run_lock(folder))
            session._open_metrics()
        return session

    @classmethod
    def resume(
        cls, folder: str | Path, experiment: Experiment, *, intervals: Intervals | None = None
    ) -> "Session":
        """Go on from the newest checkpoint that can be read.

        Args:
            folder: of the run.
            experiment: built as it was for `start`; only its steps or epochs may differ.
            intervals: how often to do what.

        Raises:
            RunLockedError: if another process trains there.
            FileFormatError: if no checkpoint can be read, or they hold another model.
            ValueError: for another text or other settings.
        """
        folder = Path(folder)
        session = cls(folder, experiment, intervals or Intervals(), experiment.init_state())
        with session._closed_on_error():
            session._resources.enter_context(run_lock(folder))
            remove_stale(folder)
            remove_stale(folder / CHECKPOINTS)
            found = latest_state(
                folder,
                session.state,
                session.notes.append,
                lambda metadata: session.notes.extend(
                    expect_same_run(metadata["run"], session._identity)
                ),
            )
            settings = dataclasses.asdict(experiment.settings)
            change_settings(folder, {name: settings[name] for name in MAY_CHANGE})
            session.state, session._saved_step = found.state, found.state.step
            session.best_step = found.metadata["best_step"]
            if session.best_step is not None:
                session.best_loss = found.metadata["best_loss"]
            keep_last(folder, session.best_step)  # a kill may have come between a save and this
            session._open_metrics()
        return session

    def train(self) -> Iterator[Record]:
        """Train to the end, yielding the record of each step.

        Raises:
            FloatingPointError: after `MAX_CONSECUTIVE_ERRORS` batches in a row without a finite
                loss and gradient, at the next.
            OSError: if something cannot be written; the checkpoints written before are whole.
        """
        for step in self._steps():
            self._writer.check()
            self.state = step.state
            record = self._record(step)
            record = self._metrics.append(record, flush="val_loss" in record)
            self.records.append(record)
            if "sample" in record:
                write_samples(self.folder, self.records)
            val_loss = record.get("val_loss")
            if val_loss is not None and val_loss < self.best_loss:
                self.best_step, self.best_loss = step.state.step, val_loss
                self._save(best=True)
            elif step.state.step % self.intervals.checkpoint_every == 0:
                self._save()
            yield record

    def close(self) -> None:
        """Save where the run is and let the folder go.

        Raises:
            OSError: if something cannot be written, now or earlier.
        """
        with self._resources:
            self._writer.check()
            params = self.state.params
            if self._saved_step != self.state.step:
                self._save()
            self._writer.submit("last", lambda: save_weights(self.folder / LAST_FILE, params))
            if self.best_step is None and _finite(params):
                self._writer.submit("best", lambda: save_weights(self.folder / BEST_FILE, params))
            self._writer.wait()

    def __enter__(self) -> "Session":
        """Return the session."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it; an error on the way out is not hidden by one of saving."""
        try:
            self.close()
        except Exception:
            if error is None:
                raise

    def _steps(self) -> Iterator[TrainStep]:
        try:
            yield from self.experiment.run(
                self.state, max_consecutive_errors=MAX_CONSECUTIVE_ERRORS, inspect=self._inspect
            )
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{MAX_CONSECUTIVE_ERRORS + 1} batches in a row without a finite gradient: "
                f"{error}; the weights before are in {self.folder / LAST_FILE}: look at the data, "
                "or start anew with a lower learning rate"
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
        self.records = self._metrics.kept
        if len(self.records) < step:
            self.notes.append(f"{METRICS_FILE} has only {len(self.records)} of {step} steps")

    def _record(self, step: TrainStep) -> Record:
        """Return the figures of a step, with a validation and a sample where they are due."""
        number, experiment = step.state.step, self.experiment
        tokens, _ = experiment.batch_at(number - 1)
        updates_before = number - step.state.total_notfinite - (not step.fault)
        record = record_of(step, lr=experiment.schedule(updates_before), tokens=tokens.size)
        last, every = number == experiment.steps, self.intervals.sample_every
        if last or number % self.intervals.eval_every == 0:
            record["val_loss"] = experiment.validation_loss(step.state.params)
        if (last or (every and number % every == 0)) and _finite(step.state.params):
            record["sample"] = sample(experiment, step.state.params)
        return record

    def _inspect(self, number: int, params: Tree, grads: Tree, updates: Tree) -> Any:
        every = self.intervals.statistics_every
        if not every or (number != 1 and number % every):
            return None
        tokens, _ = self.experiment.batch_at(number - 1)
        return statistics_of(self.experiment.model, params, grads, updates, tokens)

    def _save(self, *, best: bool = False) -> None:
        """Have a checkpoint written; of the best step also its weights alone, before it."""
        state, metadata, best_step = self.state, self._metadata(), self.best_step
        self._metrics.flush()  # what the checkpoint stands on must not be lost with this process

        def write() -> None:
            self._metrics.sync()
            if best:
                save_weights(self.folder / BEST_FILE, state.params)
            save_state(self.folder, state, metadata=metadata, best_step=best_step)

        self._writer.submit("best" if best else "checkpoint", write)
        self._saved_step = state.step

    def _metadata(self) -> dict[str, Any]:
        seed, epochs = self.experiment.settings.seed, self.experiment.settings.epochs
        return {
            "run": self._identity,
            "key": [seed],
            "batch": {
                "next": self.state.step,
                "of": "random windows" if epochs is None else "epochs",
            },
            "best_step": self.best_step,
            "best_loss": None if self.best_step is None else self.best_loss,
        }


def _finite(params: Tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in pytree.leaves(params))
