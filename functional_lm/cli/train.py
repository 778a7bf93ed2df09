"""``functional-lm train``."""

import dataclasses
import itertools
import json
import math
import re
import shlex
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from rich.filesize import decimal

from .. import pytree
from ..contract import Tree, expect_fields, expect_int
from ..files import write_atomic
from ..models.adapting import AdapterConfig, adapt, adapters_of, merge, plain
from ..numerics import smooth
from ..reports.event_files import TensorBoardWriter, expect_tensorboard
from ..runs import Interruption, Intervals, Session, load_checkpoint, open_run
from ..runs.checkpoint import in_form_of
from ..runs.folder import (
    BEST_FILE,
    EVALUATION_FILE,
    TOKENIZER_FILE,
    expect_free,
    read_config,
    table_of,
)
from ..runs.identity import identity
from ..runs.records import FINAL, clock, final_loss, series
from ..speed.runtime import cores
from ..text import EncodedCorpus, load_tokenizer
from ..training import Cluster, Distribution, Experiment, text_losses
from .display import TrainingDisplay, curve, watched, wrapped
from .flags import Argument, C, Setup, TrainSelection
from .output import print
from .runs import find_run

EVENTS = "tensorboard"
"""The folder of a run's event files."""


@dataclasses.dataclass(frozen=True)
class RunSelection(TrainSelection):
    """The model and a recipe, by name, or a run; they decide which other flags there are.

    Attributes:
        resume: continue this run; only its steps or epochs may change.
        init: start a new run from the model, tokenizer and weights of this one.
    """

    resume: Annotated[Path | None, Argument("RUN", find_run, positional=False)] = None
    init: Annotated[Path | None, Argument("RUN", find_run, positional=False)] = None


@dataclasses.dataclass(frozen=True)
class Train(Setup[C]):
    """Train a language model on a text and save it.

    Stop a run at any time, with Ctrl-C for example, and continue it with --resume.

    Attributes:
        adapters: adapters, to tune the run of --init without changing its weights.
        intervals: how often to validate, checkpoint, record statistics and sample.
        distribution: how the processes that mpiexec started share the work.
        out: the folder to write, which must not exist. Not given: runs/<time>.
        overwrite: replace the run in the folder of --out, with everything in that folder.
        dry_run: print what would be trained, its memory and its time; write nothing.
        log_every: steps between two lines of output, where that is not a terminal.
        final_eval: at the end, evaluate the best weights on all held-out tokens, where the
            validations used a sample of them. Skipped if that would take over 10 seconds and over
            a tenth of the training time.
        tensorboard: also write event files for TensorBoard to the run's folder tensorboard.
    """

    model: RunSelection
    adapters: AdapterConfig
    intervals: Intervals
    distribution: Distribution
    out: Path | None = None
    overwrite: bool = False
    dry_run: bool = False
    log_every: int = 100
    final_eval: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        expect_fields(self, (expect_int, "log_every", {}))
        run = self.model.resume
        for name in ("config", "init", "out"):
            value = self.out if name == "out" else getattr(self.model, name)
            if run is not None and value is not None:
                raise ValueError(
                    f"a resumed run has its own folder and settings: got --{name} and "
                    f"--resume {run}; leave one out"
                )
        given = getattr(self.source, "tokenizer", None)
        if run is None and self.model.init is not None and given is not None:
            raise ValueError(
                f"a run keeps the tokenizer of --init: got --tokenizer {given} and --init "
                f"{self.model.init}; leave one out"
            )
        if run is not None:
            before = table_of(read_config(run), "text").get("tokenizer")
            if given != before:
                raise ValueError(
                    f"a resumed run keeps its tokenizer, {before or 'char'}: got --tokenizer "
                    f"{given}; leave that out"
                )
        kind = getattr(self.adapters, "kind", None)  # None in place of faulty adapters
        if kind is not None and run is None and self.model.init is None:
            raise ValueError(f"adapters tune a run: got {kind} and no run; pass --init RUN")

    def run(self) -> int:
        """Train; return the exit status."""
        cluster = Cluster.launched(self.distribution)
        if cluster is not None and not cluster.leads:
            cluster.follow(self._prepared(cluster)[0])
            return 0
        if self.out is not None:
            expect_free(self.out, overwrite=self.overwrite)
        if self.tensorboard:
            expect_tensorboard()
        try:
            return self._lead(*self._prepared(cluster))
        finally:
            if cluster is not None:
                cluster.stop()

    def _prepared(self, cluster: Cluster | None) -> tuple[Experiment, dict[str, Any]]:
        """Return what is trained, the same in all processes of a cluster, and a note of its text.

        One process of each machine reads the text.
        """
        owner = self.model.init or self.model.resume
        tokenizer = None if owner is None else load_tokenizer(owner / TOKENIZER_FILE)
        others_corpus = text = None
        if cluster is not None and not cluster.reads:
            others_corpus, tokenizer = cluster.shared()
        corpus = others_corpus or self.source.load_text()
        experiment = self.experiment(
            corpus, tokenizer=tokenizer, adapters=self.adapters, cluster=cluster
        )
        if not isinstance(corpus, EncodedCorpus):
            text = self.source.record(corpus)
        if cluster is not None:
            experiment = cluster.share(experiment) if cluster.reads else experiment
            mine = identity(experiment)
            cluster.expect_same(
                {
                    **{name: mine[name] for name in ("tokenizer", "text_sha256")},
                    **mine["config"],
                    **mine["settings"],
                    **dataclasses.asdict(self.intervals),
                    **dataclasses.asdict(self.distribution),
                }
            )
        return experiment, text or {}

    def _lead(self, experiment: Experiment, text: dict[str, Any]) -> int:
        """Train in the process that writes; return the exit status."""
        # A resumed run is known to work, and its settings are checked before it takes memory.
        init = self.model.init
        params = None if self.model.resume else experiment.rehearse()
        if init is not None:
            params = _started_from(init, experiment, trust_model=self.model.trust_model)
        size = f"{self.training.batch_size} × {self.training.seq_len} tokens"
        to_train, held_out = experiment.tokens.size, len(experiment.held_out)
        print(f"text        {text['source']}")
        print(f"tokens      {to_train:,} to train on, {held_out:,} held out")
        print(f"vocabulary  {experiment.tokenizer.vocab_size} {experiment.tokenizer.unit}s")
        print(f"model       {self.model.model}: {experiment.model.n_parameters:,} parameters")
        if self.adapters.kind is not None:
            print(f"trained     {_share_trained(experiment)}")
        if init is not None:
            print(f"weights     those of {init}")
        if experiment.cluster is not None:
            processes, parts = experiment.cluster.comm.size, experiment.settings.parts
            print(f"processes   {processes}, for {parts} microbatches")
        run = f"run         {experiment.steps:,} steps of {size}"
        if self.dry_run:
            print(run, flush=True)
            return _forecast(experiment, params or experiment.rehearse(), self.intervals)
        session = self._session(experiment, params, text)
        print(f"{run}, written to {session.folder}", flush=True)
        if self.model.resume is not None:
            finished = session.state.step >= experiment.steps
            more = ", its last; extend it with --steps" if finished else ""
            print(f"resumed     after step {session.state.step:,}{more}", flush=True)
        for note in session.notes:
            print(f"warning: {note}", file=sys.stderr)
        return self._train(session)

    def _session(self, experiment: Experiment, params: Tree, text: dict[str, Any]) -> Session:
        """Return a new or resumed session."""
        init = self.model.init
        if self.model.resume is None:
            return Session.start(
                self.out,
                experiment,
                params=params,
                intervals=self.intervals,
                settings={
                    "text": text,
                    "output": {"log_every": self.log_every, **dataclasses.asdict(self.intervals)},
                    **({"start": {"init": str(init.resolve())}} if init is not None else {}),
                },
                overwrite=self.overwrite,
            )
        return Session.resume(self.model.resume, experiment, intervals=self.intervals)

    def _train(self, session: Session) -> int:
        start, first = time.perf_counter(), session.state.step
        final_tokens = self._final_tokens(session)
        display = TrainingDisplay(session, self.log_every, final_tokens=final_tokens)
        folder = shlex.quote(str(session.folder))
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
                    f"fix this, then run functional-lm train --resume {folder}",
                    file=sys.stderr,
                )
                return 1
            seconds = time.perf_counter() - start
            if session.state.step > first:
                _summarise(session, first, seconds)
            if interruption.signal is not None:
                print(
                    f"interrupted: step {session.state.step:,} is saved; "
                    f"continue with functional-lm train --resume {folder}"
                )
                return interruption.status
            interruption.effect = "ends the validation; the run is complete"
            print(f"saved in {session.folder}", flush=True)
            if (cluster := session.experiment.cluster) is not None:
                _print_memory(cluster)
            if final_tokens and session.state.step > first:
                if display.final_seconds(session.state.step, seconds):
                    _evaluate_whole(session, final_tokens, interruption)
                else:
                    print(f"validated on a sample of the {final_tokens:,} held-out tokens; for all")
                    print(f"            functional-lm evaluate {folder}")
            print(f"next        functional-lm generate {folder}")
            print(f"            functional-lm report {folder}")
            epochs = self.training.epochs
            longer = (
                f"--epochs {2 * epochs}" if epochs else f"--steps {2 * session.experiment.steps}"
            )
            print(f"            functional-lm train --resume {folder} {longer}")
        return interruption.status

    def _final_tokens(self, session: Session) -> int:
        """Return the tokens to evaluate at the end: all, or none if all validations saw them."""
        size = session.experiment.settings.seq_len
        held_out = (len(session.experiment.held_out) - 1) // size * size
        return held_out if self.final_eval and self.intervals.eval_tokens < held_out else 0

    def _events(self, session: Session) -> AbstractContextManager[TensorBoardWriter | None]:
        if not self.tensorboard:
            return nullcontext()
        return TensorBoardWriter(session.folder / EVENTS, purge_step=session.state.step + 1)


def _started_from(run: Path, experiment: Experiment, *, trust_model: bool) -> Tree:
    """Return the best weights of a run, its adapters merged, with new adapters if there are any."""
    model, params, *_ = open_run(run, trust_model=trust_model)
    like = plain(experiment.model).init(None)
    weights = in_form_of(like, merge(model, params), run / BEST_FILE)
    return adapt(experiment.model, weights, (experiment.settings.seed, 4))


def _share_trained(experiment: Experiment) -> str:
    """Return how many parameters are trained, which part of all they are, and where."""
    shapes = experiment.model.init(None)
    count = sum(leaf.size for leaf in adapters_of(experiment.model, shapes).values())
    places = (re.sub(r"^blocks\.\d+\.", "", path) for path in experiment.model.adapted.layers)
    share = f"{count:,} of them ({count / experiment.model.n_parameters:.1%})"
    return f"{share}, in {', '.join(dict.fromkeys(places))}"


def _forecast(experiment: Experiment, params: Tree, intervals: Intervals) -> int:
    """Print the settings of a run, and from two steps of it the memory and the time it takes."""
    settings = {**dataclasses.asdict(experiment.config), **experiment.in_force}
    settings = {**dataclasses.asdict(experiment.config), **experiment.in_force}
    given = {name: value for name, value in settings.items() if value is not None}
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in given.items())
    print(wrapped("settings", ", ".join(shown), 12))
    tokens, side = experiment.batch_at(0)
    first = {"targets": side["targets"][:1], "key": side["key"]}
    chosen = experiment.settings
    windows = -(-len(tokens) * (chosen.shards or cores()) // chosen.parts)
    _, residuals = experiment.model.forward(params, tokens[:1], **first)
    all_leaves = experiment.trainable is None
    trained = params if all_leaves else adapters_of(experiment.model, params)
    parts = {
        "parameters": pytree.buffer_bytes(params),
        "optimizer state": pytree.buffer_bytes(experiment.init_state(params).optimizer_state),
        "gradient": pytree.buffer_bytes(trained),
        f"residuals of {windows} windows": windows * pytree.buffer_bytes(residuals, without=params),
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
    validated = min(len(experiment.held_out), intervals.eval_tokens)
    forward = step / 3 * validated / tokens.size  # a third of a step is forward
    total = clock(experiment.steps * step + validations * forward)
    print(f"time        {total} for {experiment.steps:,} steps of {1000 * step:.1f} ms")
    print("dry run     nothing was written")
    return 0


def _summarise(session: Session, first: int, seconds: float) -> None:
    """Print curves and figures."""
    losses, evaluated = (series(session.records, name) for name in ("loss", "val_loss"))
    curves: dict[str, Any] = {"loss": (losses.steps, smooth(losses.values, FINAL))}
    if len(evaluated.steps) > 1:
        curves["validation"] = evaluated
    if len(losses.steps) > 1:
        print(f"{curve(curves)}\n")
    loss = final_loss(losses.values)
    figures = f"{session.state.step - first:,} steps in {clock(seconds)}, loss {loss:.3f}"
    if len(evaluated.steps):
        figures += f", validation {evaluated.values[-1]:.3f}"
    if session.best_step is not None:
        figures += f", the best {session.best_loss:.3f} at step {session.best_step:,}"
    print(figures)


def _print_memory(cluster: Cluster) -> None:
    """Print the peak memory of the processes, and what they hold of the optimizer's state."""
    memory = cluster.memory()
    for label, sizes in (
        ("memory", [one.peak for one in memory]),
        ("optimizer", [one.optimizer_state for one in memory]),
    ):
        first, others = decimal(sizes[0]), sorted(sizes[1:])
        most = f", at most {decimal(others[-1])} in the others" if others else ""
        print(f"{label:12}{first} in the first process{most}")


def _evaluate_whole(session: Session, tokens: int, interruption: Interruption) -> None:
    """Evaluate the best weights on all held-out tokens; write and print the loss."""
    experiment, path = session.experiment, session.folder / EVALUATION_FILE
    params = load_checkpoint(session.folder / BEST_FILE, like=session.state.params).tree
    losses = text_losses(experiment.model, params, experiment.held_out, experiment.settings.seq_len)
    watching = watched(f"validating on all {tokens:,} held-out tokens", losses)
    *_, loss = math.nan, *itertools.takewhile(lambda _: interruption.signal is None, watching)
    if interruption.signal is not None:
        print(f"not validated; functional-lm evaluate {session.folder} does it")
        return
    bits = experiment.bits_per_byte(loss)
    figures = {"loss": loss, "bits_per_byte": bits, "tokens": tokens, "step": session.best_step}
    write_atomic(path, json.dumps(figures, indent=2) + "\n")
    shown = "" if bits is None else f", {bits:.3f} bits per byte"
    print(f"validation  {loss:.4f}{shown}, on all {tokens:,} held-out tokens")
