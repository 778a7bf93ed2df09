"""``functional-lm sweep``."""

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any, ClassVar

from ..files import write_atomic
from ..runs.records import final_loss
from ..training import Experiment
from .display import curve, write_rate_picture
from .flags import C, Setup, new_folder
from .output import print

SWEEP_FILE, PLOT_FILE = "sweep.json", "sweep.png"


@dataclasses.dataclass(frozen=True)
class Sweep(Setup[C]):
    """Train with several learning rates and compare them in a table and a plot.

    Attributes:
        lr: the learning rates, separated by commas.
        min_lr: the learning rate at the end of each run. Not given: a tenth of lr.
        out: the folder to write, which must not exist. Not given: runs/sweep-<time>.
    """

    IGNORED: ClassVar = ("lr",)  # the rate of the run that a config file is from

    lr: str = "1e-4,3e-4,1e-3,3e-3,1e-2"
    min_lr: float | None = None
    out: Path | None = None

    def run(self) -> int:
        """Train each, print the table, write it and the plots."""
        rates = self._rates()
        out = new_folder(self.out, "sweep")
        corpus = self.source.load_text()
        experiments = [self.experiment(corpus, lr=rate, min_lr=self.min_lr) for rate in rates]
        experiments[0].rehearse()
        out.mkdir(parents=True)
        print(f"text   {corpus.source}")
        print(f"sweep  {len(rates)} runs of {experiments[0].steps:,} steps, written to {out}\n")
        print(f"{'lr':>8}  {'loss':>7}  {'validation':>10}  {'seconds':>7}", flush=True)
        rows: list[dict[str, Any]] = []
        for rate, experiment in zip(rates, experiments, strict=True):
            row = _measure(experiment)
            rows.append({"lr": rate, **row})
            loss, val_loss = (
                "-" if row[name] is None else f"{row[name]:.3f}" for name in ("loss", "val_loss")
            )
            fault = f"  {row['fault']}" if row["fault"] else ""
            print(
                f"{rate:>8.1e}  {loss:>7}  {val_loss:>10}  {row['seconds']:>7.1f}{fault}",
                flush=True,
            )
            write_atomic(out / SWEEP_FILE, json.dumps(rows, indent=2) + "\n")
        learned = [row for row in rows if row["fault"] is None]
        if not learned:
            raise FloatingPointError("no learning rate learned anything: pass lower ones")
        best = min(learned, key=lambda row: row["val_loss"])
        if len(learned) > 1:
            points = [row["lr"] for row in learned], [row["val_loss"] for row in learned]
            print("\n" + curve({"validation loss by learning rate": points}, x_as_log=True))
        print(f"best  lr {best['lr']:g}, validation {best['val_loss']:.3f}; written to {out}")
        rates = [row["lr"] for row in learned]
        write_rate_picture(
            out / PLOT_FILE,
            {
                "validation": (rates, [row["val_loss"] for row in learned]),
                "training, mean of the last 50 steps": (rates, [row["loss"] for row in learned]),
            },
        )
        return 0

    def _rates(self) -> list[float]:
        try:
            rates = [float(part) for part in self.lr.split(",")]
        except ValueError:
            raise ValueError(
                f"lr must be numbers with commas: got {self.lr!r}; pass 1e-4,1e-3"
            ) from None
        if len(set(rates)) < len(rates):
            raise ValueError(f"lr must be distinct numbers: got {self.lr!r}; remove one")
        return rates


def _measure(experiment: Experiment) -> dict[str, Any]:
    """Train once; a run that diverges, or ends no better than chance, has a fault."""
    start = time.perf_counter()
    losses: list[float] = []
    row: dict[str, Any] = {"loss": None, "val_loss": None, "fault": None}
    try:
        for step in experiment.run():
            losses.append(step.loss)
        val_loss = experiment.validation_loss(step.state.params)
        if not math.isfinite(val_loss):
            raise FloatingPointError
        row |= {"loss": final_loss(losses), "val_loss": val_loss}
        if val_loss >= math.log(experiment.config.vocab_size):
            row["fault"] = "no better than chance"
    except FloatingPointError:
        row["fault"] = f"diverged at step {len(losses) + 1}"
    return row | {"seconds": round(time.perf_counter() - start, 1)}
