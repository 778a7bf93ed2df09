"""Holds the suggestion of ``functional-lm find-lr`` against sweeps over learning rates.

    python tests/campaigns/benchmarks/find_lr.py [--only NAME ...] [--seeds 2] [--json FILE]

For each setting: the suggestion of a range test with each seed, the validation loss of a training
with it, and that of the best of a sweep. Exits with 1 if a suggestion is more than 3% worse.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from functional_lm.speed import runtime
from functional_lm.text import load_corpus
from functional_lm.training import Experiment, TrainConfig
from functional_lm.training.range_test import range_test

RATES = (1e-3, 2e-3, 3e-3, 5e-3, 8e-3, 1.2e-2, 2e-2)
ALLOWED = 0.03


class Setting(NamedTuple):
    """A training."""

    sizes: dict[str, Any]
    batch_size: int
    seq_len: int
    steps: int
    corpus: str = "shakespeare"


TINY = {"d_model": 128, "n_heads": 4, "n_layers": 4}
SETTINGS = {
    "width 32": Setting({"d_model": 32, "n_heads": 2, "n_layers": 2}, 8, 16, 300),
    "width 64": Setting({"d_model": 64, "n_heads": 4, "n_layers": 2}, 16, 32, 400),
    "width 64, stdlib": Setting(
        {"d_model": 64, "n_heads": 4, "n_layers": 2}, 16, 32, 300, "stdlib"
    ),
    "tiny": Setting(TINY, 16, 64, 300),
    "tiny, 600 steps": Setting(TINY, 16, 64, 600),
    "tiny, stdlib": Setting(TINY, 16, 64, 300, "stdlib"),
    "width 256": Setting({"d_model": 256, "n_heads": 8, "n_layers": 4}, 16, 64, 300),
}


def build(setting: Setting, seed: int, **rate: float) -> Experiment:
    """Return the experiment of a setting, at a learning rate if one is given."""
    text = load_corpus(setting.corpus).text
    size = {"batch_size": setting.batch_size, "seq_len": setting.seq_len}
    settings = TrainConfig(steps=setting.steps, seed=seed, **size, **rate)
    return Experiment.build(text, settings, sizes=setting.sizes)


def validation(experiment: Experiment) -> float:
    """Train, and return the validation loss; infinity if it diverged."""
    try:
        for step in experiment.run():
            params = step.state.params
    except FloatingPointError:
        return math.inf
    loss = experiment.validation_loss(params)
    return loss if math.isfinite(loss) else math.inf


def compare(setting: Setting, seed: int, said: Callable[[str], None]) -> dict[str, Any]:
    """Return the suggestion, its validation loss, and those of the sweep by rate."""
    test = range_test(build(setting, seed))
    suggestion = float(f"{test.suggestion:.2g}")
    losses = {}
    for rate in (suggestion, *RATES):
        losses[rate] = validation(build(setting, seed, lr=rate))
        said(f"  seed {seed}, lr {rate:.1e}: validation {losses[rate]:.4f}")
    best = min(RATES, key=lambda rate: losses[rate])
    return {
        "seed": seed,
        "halfway": test.halfway,
        "diverged": test.diverged,
        "suggestion": suggestion,
        "suggested_loss": losses[suggestion],
        "best": best,
        "best_loss": losses[best],
        "sweep": {rate: losses[rate] for rate in RATES},
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", help="a file for all figures")
    arguments = parser.parse_args()

    print(
        "| setting | seed | suggestion | its validation | best of the sweep | validation | over |"
    )
    print("|---|---|---|---|---|---|---|")
    rows, worst = [], -math.inf
    for name in arguments.only:
        for seed in range(arguments.seeds):
            print(name, file=sys.stderr)
            row = compare(SETTINGS[name], seed, lambda text: print(text, file=sys.stderr))
            over = row["suggested_loss"] / row["best_loss"] - 1
            worst = max(worst, over)
            rows.append({"setting": name, **row, "over": over})
            print(
                f"| {name} | {seed} | {row['suggestion']:.1e} | {row['suggested_loss']:.3f} | "
                f"{row['best']:.1e} | {row['best_loss']:.3f} | {over:+.1%} |",
                flush=True,
            )
            if arguments.json:
                with open(arguments.json, "w", encoding="utf-8") as file:
                    json.dump(rows, file, indent=2)
    if worst > ALLOWED:
        sys.exit(f"a suggestion is {worst:.1%} worse than the best of its sweep")


if __name__ == "__main__":
    runtime.tune()
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        main()
