"""Count the checker's false alarms on right layers, at many seeds and two scales of the inputs.

python tests/campaigns/zoo/false_alarms.py [--seeds 50] [--own-inputs] [NAMES]

Every layer, loss and model of the library at each of its cases, and every right layer of the bug
zoo, with the inputs as they are and a hundred times smaller. With --own-inputs the check also draws
inputs itself, as `check_vjp` does for a layer of a user.
"""

import argparse
import sys
import time

from bug_zoo import ALL
from rich.console import Console
from rich.progress import track

from functional_lm.testing import cases, names, registry
from functional_lm.testing.check import check
from functional_lm.testing.inputs import jitter, scaled
from functional_lm.testing.oracle import JaxOracle

SCALES = (1.0, 0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--own-inputs", action="store_true")
    options = parser.parse_args()
    start, runs, count, alarms = time.perf_counter(), 0, 0, []
    for subject in track(subjects(options.names), console=Console(stderr=True), transient=True):
        count += 1
        for report in reports(subject, range(options.seeds), options.own_inputs):
            runs += 1
            if not report:
                alarms.append(str(report))
    seconds = time.perf_counter() - start
    print(
        *alarms,
        f"{runs} checks of {count} right layers and settings, {len(alarms)} false alarms, "
        f"{seconds:.0f} s",
        sep="\n",
    )
    return 1 if alarms else 0


def subjects(chosen):
    """Return (name, layer, reference, params, x, keywords, factor) of every right layer."""
    found = []
    for name in names():
        layer, twin = registry.modules(name)
        found += [
            (f"{name} ({c.label})", layer, twin, c.params, c.x, c.keywords, registry.FACTOR)
            for c in cases(name)
        ]
    seen = set()
    for bug in ALL:
        if id(bug.right) not in seen:
            seen.add(id(bug.right))
            found.append((bug.name, bug.right, bug.reference, bug.params, bug.x, bug.keywords, 8.0))
    return [s for s in found if not chosen or s[0].partition(" ")[0].rstrip(":") in chosen]


def reports(subject, seeds, own_inputs=False):
    """Check one layer at inputs redrawn for each seed, at both scales; compiled once."""
    name, layer, reference, params, x, keywords, factor = subject
    oracle = JaxOracle(reference, registry.twin(keywords))
    for seed in seeds:
        for scale in SCALES:
            moved = jitter((seed, 7), (params, x), spread=0.5)
            yield check(
                f"{name}, seed {seed}, scale {scale:g}",
                layer,
                moved[0],
                scaled(moved[1], scale),
                reference=oracle,
                cotangent=None,
                seed=seed,
                dtypes=("float64", "float32"),
                factor=factor,
                strict=not own_inputs,
                own_inputs=own_inputs,
                keywords=keywords,
                reproduce="",
            )


if __name__ == "__main__":
    sys.exit(main())
