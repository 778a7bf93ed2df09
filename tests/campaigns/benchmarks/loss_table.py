"""The loss table of the README: the default recipe on Tiny Shakespeare, as the mean of three seeds.

    python tests/campaigns/benchmarks/loss_table.py [--preset tiny] [--n-layers 8] [--seeds 3]

Row s is the state after s updates: training loss is the mean over updates s − 49 to s, validation
loss is over all windows of the last tenth of the text that do not overlap. In nats per character.
"""

import argparse
import statistics
import sys
import time

import numpy as np

from functional_lm.models.transformer import PRESETS
from functional_lm.speed import runtime
from functional_lm.text import load_corpus
from functional_lm.training import Experiment, TrainConfig

ROWS = (0, 100, 200, 500, 1000, 1500, 2000)


def run(text: str, sizes: dict[str, int], settings: TrainConfig) -> tuple[list, list, float]:
    """Return the training and validation losses of each row, and the seconds spent on updates."""
    experiment = Experiment.build(text, settings, sizes=sizes)
    state = experiment.init_state()
    losses: list[float] = []
    training, validation = [float("nan")], [experiment.validation_loss(state.params)]
    seconds = 0.0
    for step in experiment.run(state):
        losses.append(step.loss)
        seconds += step.seconds
        if step.state.step in ROWS:
            training.append(float(np.mean(losses[-50:])))
            validation.append(experiment.validation_loss(step.state.params))
    return training, validation, seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--n-layers", type=int, help="instead of the preset's")
    parser.add_argument("--lr", type=float, default=TrainConfig().lr)
    parser.add_argument("--min-lr", type=float)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-most", type=float, help="exit 1 if the last validation is above")
    arguments = parser.parse_args()

    corpus = load_corpus("shakespeare")
    if not corpus.source.startswith("Tiny Shakespeare"):
        sys.exit(f"the table is of Tiny Shakespeare: got {corpus.source}")
    sizes = dict(PRESETS[arguments.preset])
    if arguments.n_layers:
        sizes["n_layers"] = arguments.n_layers
    results = []
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        settings = TrainConfig(steps=ROWS[-1], lr=arguments.lr, min_lr=arguments.min_lr, seed=seed)
        results.append(run(corpus.text, sizes, settings))
        print(
            f"seed {seed}: validation {results[-1][1][-1]:.4f}, "
            f"{results[-1][2]:.0f} s of updates, {time.perf_counter() - start:.0f} s in all",
            file=sys.stderr,
            flush=True,
        )
    print("| step | training | validation |\n|---|---|---|")
    for i, row in enumerate(ROWS):
        train, held_out = (statistics.mean(r[part][i] for r in results) for part in (0, 1))
        print(f"| {row} | {'–' if row == 0 else f'{train:.3f}'} | {held_out:.3f} |")
    final = statistics.mean(r[1][-1] for r in results)
    if arguments.at_most is not None and final > arguments.at_most:
        sys.exit(f"validation {final:.4f} is above {arguments.at_most}")


if __name__ == "__main__":
    runtime.tune()
    main()
