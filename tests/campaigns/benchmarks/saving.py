"""What checkpoints and statistics cost a run of the tiny model.

    python tests/campaigns/benchmarks/saving.py [--every 100] [--rounds 8] [--preset tiny]

Runs of the default recipe take turns of that many steps: one that only trains, one that writes a
checkpoint in the middle of its turn (so that what is written in the background falls into it), one
that records statistics of gradients, updates and activations there, and one that does both. The
figures are the time of a turn over that of the first run in the same round, as median and
quartiles, and how long a checkpoint kept the training waiting.
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.statistics import summary

from functional_lm.models.transformer import PRESETS
from functional_lm.runs import Intervals, Record, Session
from functional_lm.speed import runtime
from functional_lm.text import load_corpus
from functional_lm.training import Experiment, TrainConfig

NEVER = 10**9
KINDS = {
    "neither": {"checkpoint_every": NEVER, "statistics_every": 0},
    "checkpoints": {"statistics_every": 0},
    "statistics": {"checkpoint_every": NEVER},
    "both": {},
}


def turn(records: Iterator[Record], steps: int) -> tuple[float, float]:
    """Make some steps; return the seconds of all, and of the longest between two records."""
    times = [time.perf_counter()]
    for _ in itertools.islice(records, steps):
        times.append(time.perf_counter())
    longest = max(after - before for before, after in itertools.pairwise(times))
    return times[-1] - times[0], longest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--preset", choices=list(PRESETS), default="tiny")
    options = parser.parse_args()
    runtime.tune()
    text = load_corpus().text
    settings = TrainConfig(steps=options.every * (options.rounds + 2))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    longest: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as open_runs:
        runs = {}
        for kind, changes in KINDS.items():
            intervals = {"checkpoint_every": options.every, "statistics_every": options.every}
            experiment = Experiment.build(text, settings, sizes=PRESETS[options.preset])
            session = Session.start(
                Path(folder) / kind,
                experiment,
                intervals=Intervals(eval_every=NEVER, **{**intervals, **changes}),
            )
            open_runs.enter_context(session)
            runs[kind] = session.train()
            turn(runs[kind], options.every // 2)  # so that what is due comes in the middle
        for number in range(options.rounds):
            order = list(KINDS)[number % len(KINDS) :] + list(KINDS)[: number % len(KINDS)]
            for kind in order:
                one, worst = turn(runs[kind], options.every)
                seconds[kind].append(one)
                longest[kind].append(worst)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print(f"{options.every} steps of {options.preset}: {summary(seconds['neither']).median:.2f} s")
    print(f"{'':12} {'over neither':>12} {'quartiles':>14} {'longest step, ms':>17}")
    for kind in KINDS:
        pairs = zip(seconds[kind], seconds["neither"], strict=True)
        ratio = summary([one / other for one, other in pairs])
        spread = f"{ratio.low:.3f}–{ratio.high:.3f}"
        worst = summary(longest[kind]).median * 1000
        print(f"{kind:12} {ratio.median:12.3f} {spread:>14} {worst:17.1f}")


if __name__ == "__main__":
    main()
