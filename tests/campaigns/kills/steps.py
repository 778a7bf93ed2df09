"""Errors of the disk and Ctrl-C at every call of eight steps, in the process."""

import itertools
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import functional_lm
from functional_lm.runs import Intervals, Session, read_metrics
from functional_lm.runs.background import BackgroundWriter
from functional_lm.training import Experiment, TrainConfig

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
FIRST, LAST = 2, 10
"""The steps between which something comes."""
INTERVALS = Intervals(eval_every=3, checkpoint_every=4, statistics_every=7, sample_every=5)
SETTINGS = TrainConfig(steps=12, batch_size=2, seq_len=8, shards=1)
SIZES = {"d_model": 8, "n_heads": 1, "n_layers": 1, "dropout": 0.1}
WHERE = tuple(
    str(Path(functional_lm.__file__).parent / name)
    for name in ("runs/", "files.py", "training/experiment.py", "training/loop.py")
)
"""The files whose calls are counted: those of functions elsewhere change nothing by themselves."""


def campaign(folder: Path, draw: random.Random, count: int) -> None:
    """Inject at each call, or at a number of them, and print what became of the runs."""
    BackgroundWriter.submit = lambda self, kind, write: write()  # so that its calls count too
    straight, base = folder / "straight", folder / "base"
    experiment = Experiment.build(TEXT, SETTINGS, sizes=SIZES)
    with Session.start(straight, experiment, intervals=INTERVALS) as session:
        list(session.train())
    with Session.start(base, experiment, intervals=INTERVALS) as session:
        for record in session.train():
            if record["step"] == FIRST:
                break
    expected = content(straight)
    calls = Injection(-1, KeyboardInterrupt).number_of(base, folder / "run", experiment)
    faults = (OSError(28, "No space left on device"), KeyboardInterrupt())
    points = list(itertools.product(range(calls), faults, (False, True)))
    points = draw.sample(points, count) if count else points
    seen = 0
    for number, (at, fault, again) in enumerate(points):
        run = folder / "run"
        shutil.copytree(base, run)
        injection = Injection(at, fault)
        raised = injection.train(run, experiment, again=again)
        seen += raised
        with Session.resume(run, experiment, intervals=INTERVALS) as session:
            list(session.train())
        found = content(run)
        for name in expected:
            if found.get(name) != expected[name]:
                sys.exit(
                    f"it does not hold that {name} is that of the undisturbed run after "
                    f"{fault!r} at call {at}, {injection.where}"
                )
        shutil.rmtree(run)
        if number % 1000 == 999:
            print(f"{number + 1} of {len(points)}", flush=True)
    print(
        f"{len(points)} injections at {calls} calls of {LAST - FIRST} steps, {seen} of them ended "
        "a step: all ends are bit for bit the undisturbed one"
    )


class Injection:
    """Raises an exception at a call that one of the files makes."""

    def __init__(self, at: int, fault: BaseException | type) -> None:
        self.at, self.fault = at, fault
        self.calls, self.where = 0, ""

    def number_of(self, base: Path, run: Path, experiment: Any) -> int:
        """Return how many calls there are."""
        shutil.copytree(base, run)
        self.train(run, experiment, again=False)
        shutil.rmtree(run)
        return self.calls

    def train(self, run: Path, experiment: Any, *, again: bool) -> bool:
        """Go on to the last step; tell whether the exception came.

        Args:
            run: a copy of the folder.
            experiment: to train.
            again: after the exception, go on in the same session, as one does in a notebook.
        """
        raised = False
        try:
            with Session.resume(run, experiment, intervals=INTERVALS) as session:
                try:
                    self._watched(session)
                except (OSError, KeyboardInterrupt):
                    raised = True
                    if again:
                        self._to_last(session.train())
        except OSError:  # of the first write that failed
            raised = True
        return raised

    def _watched(self, session: Session) -> None:
        records = session.train()
        sys.setprofile(self._count)
        try:
            self._to_last(records)
        finally:
            sys.setprofile(None)

    def _to_last(self, records: Any) -> None:
        for record in records:
            if record["step"] >= LAST:
                break

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        caller = frame.f_back if event == "call" else frame if event == "c_call" else None
        if caller is None or not caller.f_code.co_filename.startswith(WHERE):
            return
        if self.calls == self.at:
            self.where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            self.calls += 1
            sys.setprofile(None)
            raise self.fault
        self.calls += 1


def content(run: Path) -> dict[str, Any]:
    """Return what must be the same at the end."""
    names = ["model.safetensors", "last.safetensors", "sample.txt", "config.json"]
    names += ["checkpoints/step-00000012.safetensors"]
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in names}
    times = ("step_ms", "tokens_per_second")
    records = read_metrics(run / "metrics.jsonl")
    found["metrics"] = [{k: v for k, v in r.items() if k not in times} for r in records]
    return found
