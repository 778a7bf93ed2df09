"""Score the checkers on wrong backward passes that public repositories had.

python tests/campaigns/gradbugs/run.py [--json FILE] [--ours] [--half HALF] [NAME ...]

Each bug is checked at awkward inputs and, where one is known, at the friendly fixture that hid it.
Bugs fall into two halves by a hash of the thread's name: the first is for work on the diagnosis,
the second for its exam. Three more sets, `bug_ports.third` to `bug_ports.fifth`, were labelled
before the diagnosis had seen them. To have the other checkers: pip install -e '.[bench]'.
"""

import argparse
import json
import sys
import textwrap
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "zoo"))

from bug_ports import ALL, NEGATIVES, half_of
from other_checkers import installed
from rich.console import Console
from rich.progress import track
from scoring import NAMED, audited, our_verdict, verdict_of

OURS = "ours"
WIDTH = 100
HALVES = {
    "first": "the first half",
    "second": "the second half",
    "third": "the third set",
    "fourth": "the fourth set",
    "fifth": "the fifth set",
}


def main() -> None:
    """Score all checkers and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of classes; all if none")
    parser.add_argument("--json", metavar="FILE", help="also write every verdict to this file")
    parser.add_argument("--ours", action="store_true", help="leave the other checkers out")
    parser.add_argument("--half", choices=HALVES, help="bugs and negatives of this one alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    checkers, skipped = ([], []) if options.ours else installed()
    print(*skipped, sep="\n", file=sys.stderr)
    judges = {OURS: our_verdict} | {c.name: partial(verdict_of, c) for c in checkers}
    chosen = [p for p in [*ALL, *NEGATIVES] if p.__name__ in (options.names or [p.__name__])]
    chosen = [p for p in chosen if half_of(p) == (options.half or half_of(p))]
    verdicts: dict[str, Any] = {}
    for port in track(chosen, console=Console(stderr=True), transient=True):
        cases = {"awkward": port.awkward} | ({"friendly": port.friendly} if port.friendly else {})
        verdicts[port.__name__] = {
            case: {name: judge(port, inputs) for name, judge in judges.items()}
            for case, inputs in cases.items()
        }
    bugs = [port for port in ALL if port in chosen]
    for half, title in HALVES.items():
        members = [port for port in bugs if half_of(port) == half]
        if members:
            report(title, members, verdicts, list(judges))
    report("together", bugs, verdicts, list(judges))
    alarms([port for port in NEGATIVES if port in chosen], bugs, verdicts, list(judges))
    not_named(bugs, verdicts)
    if options.json:
        plain = {
            name: {c: {n: v._asdict() for n, v in row.items()} for c, row in cases.items()}
            for name, cases in verdicts.items()
        }
        Path(options.json).write_text(json.dumps(plain, indent=1, ensure_ascii=False))


def report(title: str, bugs: list[Any], verdicts: Any, names: list[str]) -> None:
    """Print what each checker catches of some bugs, and what ours names."""
    print(f"{title}: {len(bugs)} bugs")
    row = "  {:8}  {:>15}  {:>24}".format
    print(row("checker", "awkward inputs", "friendly fixture alone"))
    for name in names:
        cells = []
        for case in ("awkward", "friendly"):
            found = [cases[case][name] for b in bugs if case in (cases := verdicts[b.__name__])]
            cells.append(f"{sum(v.caught for v in found)} of {len(found)}")
        print(row(name, *cells))
    grades = Counter(verdicts[b.__name__]["awkward"][OURS].named for b in bugs)
    print("  causes: " + ", ".join(f"{grades[grade]} {grade}" for grade in NAMED if grades[grade]))
    print()


def alarms(negatives: list[Any], bugs: list[Any], verdicts: Any, names: list[str]) -> None:
    """Print the complaints about right versions."""
    print(f"false alarms on the right versions of {len(bugs)} bugs and {len(negatives)} negatives")
    for name in names:
        raised = [
            (port.__name__, case, row[name].alarm)
            for port in [*bugs, *negatives]
            for case, row in verdicts[port.__name__].items()
            if row[name].alarm
        ]
        print(f"  {name}: {len({port for port, *_ in raised})}")
        for port, case, text in raised:
            print_wrapped(f"    {port} ({case}): {text}")
    print()


def not_named(bugs: list[Any], verdicts: Any) -> None:
    """Print what ours misses or misnames."""
    for port in bugs:
        cases = verdicts[port.__name__]
        verdict = cases["awkward"][OURS]
        if verdict.named != "right":
            wanted = ", ".join(f"{leaf or 'the layer'}: {c}" for leaf, c in port.causes.items())
            print_wrapped(
                f"{verdict.named}: {port.__name__} ({port.thread}) {wanted}; "
                f"got {verdict.says or 'nothing'}"
            )
    for port in bugs:
        cases = verdicts[port.__name__]
        if "friendly" in cases and not cases["friendly"][OURS].caught:
            print_wrapped(f"hidden by its fixture: {port.__name__} ({port.thread}): {port.fixture}")
            for line in audited(port):
                print_wrapped(f"  the audit: {line}")


def print_wrapped(text: str) -> None:
    """Print a text with its further lines indented."""
    print(textwrap.fill(text[: 4 * WIDTH], WIDTH, subsequent_indent="      "))


if __name__ == "__main__":
    main()
