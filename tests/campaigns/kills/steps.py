"""Errors of the disk and Ctrl-C at every call of eight steps.

A process takes the steps; at each call it forks children, in which the exception comes. Each child
runs to the end of the training and compares it with an undisturbed one. Then the folder is put
back, and the process makes the call.
"""

import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import functional_lm
from functional_lm.runs import Intervals, Session, read_metrics, session
from functional_lm.runs.background import BackgroundWriter
from functional_lm.training import Experiment, TrainConfig

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
FIRST, LAST = 2, 10
"""The steps between which an exception comes."""
INTERVALS = Intervals(eval_every=3, checkpoint_every=4, statistics_every=7, sample_every=5)
SETTINGS = TrainConfig(steps=12, batch_size=2, seq_len=8, shards=1)
SIZES = {"d_model": 8, "n_heads": 1, "n_layers": 1, "dropout": 0.1}
FAULTS = (OSError(28, "No space left on device"), KeyboardInterrupt())
WHERE = tuple(
    str(Path(functional_lm.__file__).parent / name)
    for name in ("runs/", "files.py", "training/experiment.py", "training/loop.py")
)
"""The files whose calls are counted: those of functions elsewhere change nothing by themselves."""


def campaign(folder: Path, draw: random.Random, count: int) -> None:
    """Inject at each call, or at a number of them, and print what became of the runs."""
    BackgroundWriter.submit = lambda self, kind, write: write()  # so that its calls count too
    session.SAMPLE_LENGTH = 8
    straight, base = folder / "straight", folder / "base"
    experiment = Experiment.build(TEXT, SETTINGS, sizes=SIZES)
    with Session.start(straight, experiment, intervals=INTERVALS) as run:
        list(run.train())
    with Session.start(base, experiment, intervals=INTERVALS) as run:
        for record in run.train():
            if record["step"] == FIRST:
                break
    counted = Injections(folder / "count", experiment, content(straight), frozenset())
    counted.train(base)
    points = range(len(FAULTS) * 2 * counted.calls)
    chosen = frozenset(draw.sample(points, count) if count else points)
    workers = []
    for part in range(min(2, len(chosen))):
        mine = frozenset(point for point in chosen if point // 4 % 2 == part)
        worker = os.fork()
        if not worker:
            injections = Injections(folder / f"run-{part}", experiment, content(straight), mine)
            injections.train(base)
            os._exit(injections.different > 0)
        workers.append(worker)
    statuses = [os.waitpid(worker, 0)[1] for worker in workers]
    if any(statuses):
        sys.exit("not all runs end as the undisturbed one")
    print(
        f"{len(chosen)} injections at {counted.calls} calls of {LAST - FIRST} steps: all ends are "
        "bit for bit the undisturbed one"
    )


class Injections:
    """Raises exceptions at the calls that a run makes.

    Args:
        run: where to train.
        experiment: to train.
        expected: the content of the undisturbed run.
        points: which injections to make. The number of a call times four, plus two for the second
            exception, plus one to continue in the same session, as one does in a notebook, and not
            only in a new one.
    """

    def __init__(
        self, run: Path, experiment: Any, expected: dict[str, Any], points: frozenset[int]
    ) -> None:
        self.run, self.experiment, self.expected, self.points = run, experiment, expected, points
        self.calls = self.different = 0
        self.again = False
        self.where = ""

    def train(self, base: Path) -> None:
        """Train a copy of a run to the last step; in a child, also to its end."""
        parent = os.getpid()
        shutil.copytree(base, self.run)
        try:
            with Session.resume(self.run, self.experiment, intervals=INTERVALS) as session:
                try:
                    records = session.train()
                    sys.setprofile(self._call)
                    self._to_last(records)
                    sys.setprofile(None)
                except (OSError, KeyboardInterrupt):
                    if self.again:
                        self._to_last(session.train())
        except OSError:  # of the first write that failed
            pass
        if os.getpid() != parent:
            resumed = self.run.with_name(f"{self.run.name}-resumed")  # the parent has the lock
            shutil.copytree(self.run, resumed)
            with Session.resume(resumed, self.experiment, intervals=INTERVALS) as session:
                list(session.train())
            found = content(resumed)
            shutil.rmtree(resumed)
            different = [name for name in self.expected if found.get(name) != self.expected[name]]
            if different:
                print(f"{', '.join(different)} differ after {self.where}", flush=True)
            os._exit(len(different) > 0)

    def _to_last(self, records: Any) -> None:
        for record in records:
            if record["step"] >= LAST:
                break

    def _call(self, frame: Any, event: str, argument: Any) -> None:
        caller = frame.f_back if event == "call" else frame if event == "c_call" else None
        if caller is None or not caller.f_code.co_filename.startswith(WHERE):
            return
        points = [4 * self.calls + way for way in range(4)]
        self.calls += 1
        if self.points.isdisjoint(points):
            return
        sys.setprofile(None)
        before = {path: path.read_bytes() for path in self.run.rglob("*") if path.is_file()}
        kept = self.run.with_name(f"{self.run.name}-kept")
        for path in before:
            link = kept / path.relative_to(self.run)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
        for point in self.points.intersection(points):
            child = os.fork()
            if not child:
                fault, self.again = FAULTS[point // 2 % 2], point % 2 == 1
                self.where = f"{fault!r} at {caller.f_code.co_filename}:{caller.f_lineno}"
                raise fault
            self.different += os.waitpid(child, 0)[1] != 0
            # The very files, since the process may hold them open, with what was in them.
            shutil.rmtree(self.run)
            shutil.copytree(kept, self.run, copy_function=os.link)
            for path, content in before.items():
                path.write_bytes(content)
        shutil.rmtree(kept)
        sys.setprofile(self._call)


def content(run: Path) -> dict[str, Any]:
    """Return what must be the same at the end."""
    names = ["model.safetensors", "last.safetensors", "sample.txt", "config.json"]
    names += ["checkpoints/step-00000012.safetensors"]
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in names}
    times = ("step_ms", "tokens_per_second")
    records = read_metrics(run / "metrics.jsonl")
    found["metrics"] = [{k: v for k, v in r.items() if k not in times} for r in records]
    return found
