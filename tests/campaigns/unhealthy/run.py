"""Measures `diagnose` against runs that are healthy and runs made unhealthy on purpose.

    python tests/campaigns/unhealthy/run.py [--scales narrow] [--texts shakespeare stdlib]
        [--seeds 10 11 12] [--only NAME ...] [--jobs 1] [--out FILE]

Trains each kind of run in `scenarios` with each seed, diagnoses it, and compares the findings with
the trouble that the run was given: that one and no other, or none at all. Prints a table of the
findings, and exits with 1 if a run was misjudged. ``--scales tiny`` is the default recipe of the
command line. ``--out`` keeps the findings, one line per run.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor

from campaign import judge, table
from recording import SCALES
from rich.console import Console
from rich.progress import track
from scenarios import SCENARIOS


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scales", nargs="+", choices=SCALES, default=["narrow", "small"])
    texts = ("shakespeare", "stdlib", "made")
    parser.add_argument("--texts", nargs="+", choices=texts, default=["shakespeare"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12])
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, a thread each")
    parser.add_argument("--out", help="a file of JSON lines to append to")
    arguments = parser.parse_args()

    tasks = [
        (name, scale, text, seed)
        for name in arguments.only
        for scale in arguments.scales
        for text in arguments.texts
        for seed in arguments.seeds
    ]
    runs = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        judged = pool.map(judge, tasks)
        for run in track(judged, "", len(tasks), console=Console(stderr=True), transient=True):
            runs.append(run)
            said = ", ".join(one["name"] for one in run.found) or "nothing"
            where = f"{run.name}, {run.scale}, {run.text}, seed {run.seed}"
            print(
                f"{'ok   ' if run.right else 'WRONG'} {where}: {said}", file=sys.stderr, flush=True
            )
            if arguments.out:
                with open(arguments.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(run._asdict()) + "\n")
    print(table(runs))
    right = sum(run.right for run in runs)
    healthy = [run for run in runs if run.expected is None]
    alarms = sum(not run.right for run in healthy)
    print(f"\n{right} of {len(runs)} runs judged as they should be", end="; ")
    print(f"something found in {alarms} of {len(healthy)} healthy ones")
    sys.exit(right < len(runs))


if __name__ == "__main__":
    main()
