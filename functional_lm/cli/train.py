"""``functional-lm train``."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Tree, expect_int
from ..files import write_atomic
from ..generation import temperature
from ..training import (
    Experiment,
    MetricsFile,
    Record,
    TrainConfig,
    record_of,
    save_run,
    save_weights,
)
from ..training.run_folder import BEST_FILE, LAST_FILE, METRICS_FILE, SAMPLE_FILE
from .display import TrainingDisplay, clock, curve, smooth
from .flags import Sizes, Source, expect_known, given_sizes, new_folder, preset_defaults

SAMPLE_LENGTH = 300


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a language model on a text, and save it.

    Attributes:
        training: how to train.
        sizes: the model.
        source: what to train, and on what.
        config: a TOML or JSON file of settings, such as a run's config.json; flags override it.
        out: the folder to write, which must not exist. Not given: runs/<time>.
        log_every: steps between two lines where the output is no terminal.
        eval_every: steps between two validations.
        sample_every: steps between two samples in sample.txt. 0: only one at the end.
    """

    training: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    source: Source = dataclasses.field(default_factory=Source)
    config: Path | None = None
    out: Path | None = None
    log_every: int = 100
    eval_every: int = 250
    sample_every: int = 0

    @classmethod
    def defaults(cls, arguments: list[str]) -> "Train":
        """Return the settings that --preset and --config set."""
        training, sizes, source, others = preset_defaults(arguments)
        return cls(training, sizes, source, **expect_known(others, cls))

    def __post_init__(self) -> None:
        """Check the intervals."""
        expect_int("log_every", self.log_every)
        expect_int("eval_every", self.eval_every)
        expect_int("sample_every", self.sample_every, minimum=0)

    def run(self) -> int:
        """Train; return the exit status."""
        out = new_folder(self.out, time.strftime("%Y%m%d-%H%M%S"))
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
        print(f"run         {experiment.steps:,} steps of {size}, written to {out}", flush=True)
        save_run(
            out,
            params,
            experiment.config,
            experiment.tokenizer,
            settings={
                "training": dataclasses.asdict(experiment.settings),
                "text": self.source.record(corpus),
                "output": {
                    "log_every": self.log_every,
                    "eval_every": self.eval_every,
                    "sample_every": self.sample_every,
                },
            },
            model_file=self.source.model,
        )
        return _Session(self, experiment, out).run()


class _Session:
    """A run under way: the last state, the best loss, what is written where."""

    def __init__(self, command: Train, experiment: Experiment, out: Path) -> None:
        self.command = command
        self.experiment = experiment
        self.out = out
        self.state = experiment.init_state()
        self.records: list[Record] = []
        self.best = float("inf")
        self.samples: list[str] = []

    def run(self) -> int:
        start = time.perf_counter()
        metrics = MetricsFile(self.out / METRICS_FILE)
        display = TrainingDisplay(self.experiment.steps, self.command.log_every)
        status = 0
        try:
            with display:
                self._train(display, metrics)
        except KeyboardInterrupt:
            status = 130
        finally:
            metrics.close()
            save_weights(self.out / LAST_FILE, self.state.params)
            if self.best == float("inf") and _finite(self.state.params):
                save_weights(self.out / BEST_FILE, self.state.params)
        if self.records:
            self._summarise(time.perf_counter() - start)
        if status:
            print(f"interrupted: the weights of step {self.state.step:,} are saved in {self.out}")
        else:
            print(f"saved in {self.out}; try: functional-lm generate {self.out}")
        return status

    def _train(self, display: TrainingDisplay, metrics: MetricsFile) -> None:
        command, experiment = self.command, self.experiment
        schedule = experiment.schedule
        for step in experiment.run(self.state):
            number = step.state.step
            last = number == experiment.steps
            tokens, _ = experiment.batch_at(number - 1)
            record = record_of(step, lr=schedule(number - 1), tokens=tokens.size)
            self.state = step.state
            if number % command.eval_every == 0 or last:
                record["val_loss"] = experiment.validation_loss(step.state.params)
                save_weights(self.out / LAST_FILE, step.state.params)
                if record["val_loss"] < self.best:
                    self.best = record["val_loss"]
                    save_weights(self.out / BEST_FILE, step.state.params)
            self.records.append(record)
            metrics.append(record, flush="val_loss" in record or number % command.log_every == 0)
            display.update(record)
            if last or (command.sample_every and number % command.sample_every == 0):
                self._sample()

    def _sample(self) -> None:
        """Write a sample to sample.txt, below those before."""
        prompt = "\n" if "\n" in self.experiment.tokenizer.characters else None
        text = self.experiment.sample(
            self.state.params,
            prompt or self.experiment.tokenizer.characters[0],
            key=(self.command.training.seed, 3),
            max_new_tokens=SAMPLE_LENGTH,
            transform=temperature(0.8),
        )
        self.samples.append(f"--- step {self.state.step}\n{text.strip()}\n")
        write_atomic(self.out / SAMPLE_FILE, "\n".join(self.samples))

    def _summarise(self, seconds: float) -> None:
        losses = smooth([record["loss"] for record in self.records])
        evaluated = [record for record in self.records if "val_loss" in record]
        steps = [record["step"] for record in self.records]
        series: dict[str, Any] = {"loss": (steps, losses)}
        if len(evaluated) > 1:
            series["validation"] = (
                [record["step"] for record in evaluated],
                [record["val_loss"] for record in evaluated],
            )
        if len(steps) > 1:
            print()
            print(curve(series))
        if self.samples:
            print(f"\n{self.samples[-1].partition(chr(10))[2]}")
        said = f"{len(steps):,} steps in {clock(seconds)}, loss {losses[-1]:.3f}"
        if evaluated:
            said += f", validation {evaluated[-1]['val_loss']:.3f}, the best {self.best:.3f}"
        print(said)


def _finite(params: Tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in pytree.leaves(params))
