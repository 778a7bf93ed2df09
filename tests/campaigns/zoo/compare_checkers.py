"""Run the bug zoo through several gradient checkers and compare what they catch.

python tests/campaigns/zoo/compare_checkers.py [--json FILE] [--ours]

Ours must also name the cause. The others get each layer in their usual form, with their default
tolerances; see `other_checkers`. To have them all: pip install torch==2.13.0 autograd.
Every checker also sees the layers without their bugs: a complaint there is a false alarm.

Exits with 1 if ours misses a bug, names less than 90 % of the causes or raises a false alarm.
"""

import argparse
import json
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from bug_zoo import ALL, Bug
from other_checkers import Checker, Flat, installed
from rich.console import Console
from rich.progress import track

from functional_lm.testing import check_vjp
from functional_lm.testing.inputs import cast
from functional_lm.testing.oracle import JaxOracle

OURS = "ours"
SEED = 0
ENOUGH = 0.9  # of the causes
WIDTH = 100


class Verdict(NamedTuple):
    """What one checker says about one bug, and about the layer without it."""

    caught: bool
    says: str  # the first line of the complaint
    false_alarm: str  # the first line of a complaint about the right layer
    named: bool = False  # the right cause, with all the words that it needs


def main() -> int:
    """Compare the checkers; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write every verdict to this file")
    parser.add_argument("--ours", action="store_true", help="leave the other checkers out")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # a fault may overflow; a warning is no verdict
    checkers, skipped = ([], []) if options.ours else installed()
    print(*skipped, sep="\n", file=sys.stderr)
    what = {OURS: "check_vjp with a reference"} | {c.name: c.what for c in checkers}
    judges = {OURS: our_verdict} | {c.name: partial(verdict_of, c) for c in checkers}
    seconds = dict.fromkeys(judges, 0.0)
    verdicts: dict[str, dict[str, Verdict]] = {bug.name: {} for bug in ALL}
    for bug in track(ALL, console=Console(stderr=True), transient=True):
        for name, judge in judges.items():
            start = time.perf_counter()
            verdicts[bug.name][name] = judge(bug)
            seconds[name] += time.perf_counter() - start
    print("\n".join([*table(verdicts, what, seconds), ""]))
    print("\n".join([*causes(verdicts), "", *missed(verdicts), "", *alarms(verdicts)]))
    if options.json:
        plain = {bug: {n: v._asdict() for n, v in row.items()} for bug, row in verdicts.items()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(plain, file, indent=1, ensure_ascii=False)
    return 0 if is_good([verdicts[bug.name][OURS] for bug in ALL]) else 1


def our_verdict(bug: Bug) -> Verdict:
    """Check a faulty and a right layer with `check_vjp`."""
    oracle = JaxOracle(bug.reference, cast(bug.keywords, "float64"))  # compiled for both
    faulty, right = (
        check_vjp(layer, *inputs, reference=oracle, seed=SEED, strict=True, **keywords)
        for layer in (bug.layer, bug.right)
        for *inputs, keywords in [cast((bug.params, bug.x, bug.keywords), "float64")]
    )
    found = faulty.causes
    if bug.leaves:
        named = all(found.get(leaf) == bug.cause for leaf in bug.leaves)
    else:
        named = bug.cause in found.values()
    named = named and all(word in str(faulty) for word in bug.says)
    says = ", ".join(f"{leaf or 'the layer'}: {cause}" for leaf, cause in found.items())
    alarm = ", ".join(finding.message for finding in right.findings) or "failed"
    return Verdict(not faulty.ok, says, "" if right.ok else alarm, named and not faulty.ok)


def verdict_of(checker: Checker, bug: Bug) -> Verdict:
    """Check a faulty and a right layer with another checker."""
    faulty, right = (complaint(checker, bug, layer) for layer in (bug.layer, bug.right))
    return Verdict(bool(faulty), faulty, right)


def complaint(checker: Checker, bug: Bug, layer: Any) -> str:
    """Return the first line of a checker's complaint about a layer, or "".

    An exception that the layer caused counts as a complaint; one of the wrapper is raised.
    """
    flat = Flat(layer, bug.params, bug.x, bug.keywords, checker.dtype)
    try:
        checker.run(flat)
    except checker.complaint as error:
        return first_line(error)
    except Exception as error:
        if not flat.faults or layer is bug.right:
            raise RuntimeError(f"the wrapper for {checker.name} fails at {bug.name!r}") from error
        return first_line(flat.faults[0])
    return ""


def first_line(message: Any) -> str:
    """Return the first line that is not empty, cut to the width of a page."""
    return (str(message).strip() or type(message).__name__).splitlines()[0][:WIDTH]


def is_good(ours: list[Verdict]) -> bool:
    """Tell whether our verdicts are good enough."""
    named = sum(verdict.named for verdict in ours)
    caught = all(verdict.caught and not verdict.false_alarm for verdict in ours)
    return caught and named >= ENOUGH * len(ours)


def of(count: int, total: int) -> str:
    """Return "57 of 60"."""
    return f"{count} of {total}"


def table(verdicts: Any, what: dict[str, str], seconds: dict[str, float]) -> Iterator[str]:
    """Yield a line for each checker."""
    row = "{:8}  {:>10}  {:>11}  {:>12}  {:>7}  {}"
    yield f"{len(verdicts)} layers with a bug, and the same layers without it"
    yield ""
    yield row.format("checker", "caught", "right cause", "false alarms", "seconds", "what it is")
    for name in what:
        column = [verdict[name] for verdict in verdicts.values()]
        total = len(column)
        yield row.format(
            name,
            of(sum(verdict.caught for verdict in column), total),
            of(sum(verdict.named for verdict in column), total) if name == OURS else "-",
            of(sum(bool(verdict.false_alarm) for verdict in column), total),
            f"{seconds[name]:.0f}",
            what[name],
        )


def causes(verdicts: Any) -> Iterator[str]:
    """Yield how many causes ours names, and those that it does not."""
    named = sum(verdicts[bug.name][OURS].named for bug in ALL)
    yield f"right causes by ours: {of(named, len(ALL))}, {named / len(ALL):.1%}"
    for bug in ALL:
        verdict = verdicts[bug.name][OURS]
        if not verdict.named:
            yield from wrapped("  not named: ", f"{bug.name} ({bug.cause}); got {verdict.says}")


def missed(verdicts: Any) -> Iterator[str]:
    """Yield the bugs that some checker misses, with a mark for each checker."""
    names = list(verdicts[ALL[0].name])
    found = [bug for bug in ALL if not all(v.caught for v in verdicts[bug.name].values())]
    yield f"{of(len(found), len(ALL))} bugs are missed by some checker (x caught, . missed)"
    yield ""
    yield "  ".join([*names, "bug"])
    for bug in found:
        marks = ("x" if verdicts[bug.name][n].caught else "." for n in names)
        cells = [mark.center(len(n)) for mark, n in zip(marks, names, strict=True)]
        yield from wrapped("  ".join([*cells, ""]), bug.name)


def alarms(verdicts: Any) -> Iterator[str]:
    """Yield the false alarms: the bugs whose right layer a checker complains of."""
    yield "false alarms"
    for bug in ALL:
        for name, verdict in verdicts[bug.name].items():
            if verdict.false_alarm:
                text = f"{bug.name} (without this bug): {verdict.false_alarm}"
                yield from wrapped(f"  {name:8}  ", text)


def wrapped(start: str, text: str) -> list[str]:
    """Wrap a text to the width of a page, under its own beginning."""
    indent = " " * len(start)
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=indent)


if __name__ == "__main__":
    sys.exit(main())
