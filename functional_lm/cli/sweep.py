"""``functional-lm sweep``."""

import dataclasses
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

from ..files import write_atomic
from ..runs import Intervals
from ..runs.records import final_loss
from ..training import Experiment
from .display import Waiting, curve, write_rate_picture
from .flags import C, Setup, new_folder
from .output import print
from .parser import parse

SWEEP_FILE, PLOT_FILE = "sweep.json", "sweep.png"
RATES = ["--lr", "1e-4,3e-4,1e-3,3e-3,1e-2"]
"""What is swept where no flag has several values."""

SINGLE = ("--text-file", "--data", "--out", "--config")
"""Flags whose value may hold a comma."""


@dataclasses.dataclass(frozen=True)
class Sweep(Setup[C]):
    """Train with several values of one flag or two, and compare them in a table and a plot.

    Separate the values of a flag by commas, as in ``--lr 1e-3,3e-3 --n-layers 2,4``. Without any,
    learning rates from 1e-4 to 1e-2 are compared.

    Attributes:
        out: the folder to write, which must not exist. Not given: runs/sweep-<time>.
    """

    out: Path | None = None

    @classmethod
    def parse(cls, arguments: list[str], *, program: str) -> "Grid | None":
        """Return the runs of a command line; None after printing its ``--help``.

        Raises:
            ValueError: for more than two flags with several values, or a value twice.
        """
        parts = [part for one in arguments for part in _split(one)]
        swept = {
            i: part.split(",")
            for i, (flag, part) in enumerate(itertools.pairwise(parts), start=1)
            if flag.startswith("--") and flag not in SINGLE and "," in part
        }
        if not swept:
            parts += [] if RATES[0] in parts else RATES
            i = parts.index(RATES[0]) + 1
            swept = {i: parts[i].split(",")} if i < len(parts) else {}
        names = [parts[i - 1][2:] for i in swept]
        if len(swept) > 2:
            raise ValueError(
                f"a sweep compares the values of at most two flags: got {', '.join(names)}; "
                "give the others one value"
            )
        for name, values in zip(names, swept.values(), strict=True):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must have distinct values: got {','.join(values)}")
        runs = []
        for combination in itertools.product(*swept.values()):
            for i, value in zip(swept, combination, strict=True):
                parts[i] = value
            made = parse(cls, parts, program=program)
            if made is None:  # after --help
                return None
            runs.append(({name: _value(made, name) for name in names}, made))
        return Grid(names, runs)

    def run(self) -> int:
        """Train once, as a grid of one."""
        return Grid([], [({}, self)]).run()


class Grid:
    """The runs of a sweep, each with its values of the swept flags."""

    def __init__(self, names: list[str], runs: list[tuple[dict[str, Any], Sweep[Any]]]) -> None:
        self._names, self._runs = names, runs

    def run(self) -> int:
        """Train each, print the table, write it and the plots."""
        names, (_, first) = self._names, self._runs[0]
        out = new_folder(first.out, "sweep")
        corpus = first.source.load_text()
        experiments: list[Experiment] = []
        shared: dict[str | None, Experiment] = {}
        for _, made in self._runs:
            key = made.source.tokenizer
            tokenizer = shared[key].tokenizer if key in shared else None
            experiment = made.experiment(corpus, tokenizer=tokenizer)
            first_with = shared.setdefault(key, experiment)  # its tokens are kept once
            experiment = dataclasses.replace(
                experiment, tokens=first_with.tokens, held_out=first_with.held_out
            )
            experiment.rehearse()
            experiments.append(experiment)
        out.mkdir(parents=True)
        steps = " or ".join(f"{n:,}" for n in sorted({each.steps for each in experiments}))
        print(f"text   {corpus.source}")
        print(f"sweep  {len(self._runs)} runs of {steps} steps, written to {out}\n")
        width = [max(8, len(name)) for name in names]
        columns = [f"{name:>{w}}" for name, w in zip(names, width, strict=True)]
        titles = f"{'loss':>7}  {'validation':>10}  {'bits/byte':>9}  {'seconds':>7}"
        print("  ".join([*columns, titles]), flush=True)
        rows: list[dict[str, Any]] = []
        start = time.perf_counter()
        for i, ((values, _), experiment) in enumerate(zip(self._runs, experiments, strict=True)):
            part = i, len(experiments)
            with Waiting(f"run {i + 1} of {part[1]}", start=start, part=part) as waiting:
                row = _measure(experiment, waiting)
            rows.append(values | row)
            columns = [f"{_text(values[name]):>{w}}" for name, w in zip(names, width, strict=True)]
            loss, validation, bits = (_loss(row[n]) for n in ("loss", "val_loss", "bits_per_byte"))
            fault = f"  {row['fault']}" if row["fault"] else ""
            figures = f"{loss:>7}  {validation:>10}  {bits:>9}  {row['seconds']:>7.1f}{fault}"
            print("  ".join([*columns, figures]), flush=True)
            write_atomic(out / SWEEP_FILE, json.dumps(rows, indent=2) + "\n")
        learned = [row for row in rows if row["fault"] is None]
        if not learned:
            raise FloatingPointError("no run learned anything: lower the learning rate")
        ranked = "bits_per_byte" if all(row["bits_per_byte"] for row in learned) else "val_loss"
        best = min(learned, key=lambda row: row[ranked])
        self._draw(learned, out)
        chosen = "  ".join(f"{name} {_text(best[name])}" for name in names)
        validation = f"validation {best['val_loss']:.3f}"
        if best["bits_per_byte"] is not None:
            validation += f" ({best['bits_per_byte']:.3f} bits per byte)"
        print(f"best  {chosen}, {validation}; written to {out}")
        print(f"next  functional-lm train{self._runs[rows.index(best)][1].flags()}")
        return 0

    def _draw(self, rows: list[dict[str, Any]], out: Path) -> None:
        """Draw the losses over the flag of numbers that has most values; a line for each other."""
        numeric = [n for n in self._names if all(isinstance(row[n], (int, float)) for row in rows)]
        if not numeric:
            return
        over = max(numeric, key=lambda name: (len({row[name] for row in rows}), name == "lr"))
        others = [name for name in self._names if name != over]
        # Losses of several tokenizers are of different tokens.
        figure, ylabel = "val_loss", "loss, in nats per token"
        if "tokenizer" in self._names and all(row["bits_per_byte"] for row in rows):
            figure, ylabel = "bits_per_byte", "loss, in bits per byte"
        lines: dict[str, Any] = {}
        for row in sorted(rows, key=lambda row: row[over]):
            name = ", ".join(["validation", *(f"{other} {_text(row[other])}" for other in others)])
            xs, ys = lines.setdefault(name, ([], []))
            xs.append(row[over])
            ys.append(row[figure])
        xs = [row[over] for row in rows]
        log = min(xs) > 0 and max(xs) >= 10 * min(xs)
        if len(set(xs)) > 1:
            unit = "bits per byte" if figure == "bits_per_byte" else "loss"
            print(f"\nvalidation {unit} by {over}\n{curve(lines, x_as_log=log)}")
        if not others:
            ordered = sorted(rows, key=lambda row: row[over])
            losses = [row[over] for row in ordered], [row["loss"] for row in ordered]
            lines["training, mean of the last 50 steps"] = losses
        write_rate_picture(out / PLOT_FILE, lines, xlabel=over, ylabel=ylabel, log=log)


def _split(argument: str) -> list[str]:
    """Return ``--flag=value`` as two arguments."""
    flag, is_one, value = argument.partition("=")
    return [flag, value] if argument.startswith("--") and is_one else [argument]


def _value(made: Sweep[Any], name: str) -> Any:
    """Return the value of a flag, wherever it is."""
    field = name.replace("-", "_")
    groups = made.training, made.sizes, made.model, made.source
    return next((getattr(group, field) for group in groups if hasattr(group, field)), None)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _measure(experiment: Experiment, waiting: Waiting) -> dict[str, Any]:
    """Train once; a run that diverges, or ends no better than chance, has a fault."""
    start = time.perf_counter()
    losses: list[float] = []
    row: dict[str, Any] = dict.fromkeys(("loss", "val_loss", "bits_per_byte", "fault"))
    try:
        for step in experiment.run():
            losses.append(step.loss)
            waiting(step.state.step / experiment.steps)
        val_loss = experiment.validation_loss(step.state.params, limit=Intervals.eval_tokens)
        if not math.isfinite(val_loss):
            raise FloatingPointError
        bits = experiment.bits_per_byte(val_loss, limit=Intervals.eval_tokens)
        row |= {"loss": final_loss(losses), "val_loss": val_loss, "bits_per_byte": bits}
        if val_loss >= math.log(experiment.config.vocab_size):
            row["fault"] = "no better than chance"
    except FloatingPointError:
        row["fault"] = f"diverged at step {len(losses) + 1}"
    return row | {"seconds": round(time.perf_counter() - start, 1)}
