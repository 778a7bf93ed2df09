"""Mutation testing of every vjp, and of every forward of a layer or loss.

    python tests/campaigns/mutation/run.py [NAMES] [--json FILE]

NAMES are layers, losses and models, or ``numerics`` for the formulas that layers share, those of
``heads``, ``rotation`` and ``chunks`` too; all of them by default. Each function is changed in one
place at a time, and the change must fail a check at the cases of
`functional_lm.testing.registry`. Exits with 1 unless all mutants of a vjp are killed, 98% of those
of a forward, and at most 5% of all are called equivalent.

Input checks are not mutated. See `operators` for the faults, `mutants` for where they go, `judge`
for what kills and `equivalent` for the mutants that compute the same.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

REQUIRED = {"vjp": 1.0, "forward": 0.98}
MAY_BE_EQUIVALENT = 0.05


class Verdict(NamedTuple):
    """What became of a mutant."""

    key: tuple[str, ...]
    number: int  # among the mutants of the function
    line: int
    kind: str
    diff: str
    outcome: str  # "killed", "equivalent" or "survived"
    reason: str  # why it died, or why it is equivalent


def judge_layer(name: str, own: bool, shared: bool) -> list[Verdict]:
    """Judge the mutants of a layer's file, and those of the shared formulas that it uses."""
    from equivalent import entries, reason_for
    from judge import Judge
    from mutants import Code

    from functional_lm.testing import registry

    code = Code(registry.modules(name)[0])
    mutants = code.own_mutants() * own + code.shared_mutants() * shared
    if not mutants:
        return []
    judge = Judge(name)
    if fault := judge.reason(code.build(), seconds=0):
        raise AssertionError(f"{name} fails without any mutation: {fault}")
    known = entries()
    verdicts = []
    for mutant in mutants:
        reason = judge.reason(code.build(mutant))
        claim = reason_for(mutant.key, known)
        outcome = "killed" if reason else "equivalent" if claim else "survived"
        what = (mutant.key, mutant.number, mutant.line, mutant.kind, str(mutant))
        verdicts.append(Verdict(*what, outcome, reason or claim))
    return verdicts


def judge_all(names: list[str]) -> list[Verdict]:
    """Judge everything in two processes; a shared formula's mutant dies if any layer kills it."""
    from functional_lm.testing import registry

    try:
        registry.modules("linear")
    except ImportError as error:
        sys.exit(str(error))
    known = registry.names()
    everything = names or [*known, "numerics"]
    if unknown := set(everything) - {*known, "numerics"}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: numerics, {', '.join(known)}")
    shared = "numerics" in everything
    asked = known if shared else everything
    found: dict[tuple[Any, ...], Verdict] = {}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        # The models come last in the registry, and take longest.
        jobs = [pool.submit(judge_layer, name, name in everything, shared) for name in asked[::-1]]
        done = track(
            as_completed(jobs), "", len(jobs), console=Console(stderr=True), transient=True
        )
        for verdict in (verdict for job in done for verdict in job.result()):
            which = (*verdict.key[:2], verdict.number)
            pair = (found.get(which, verdict), verdict)
            dead = min(pair, key=lambda v: v.outcome != "killed")
            kind = "vjp" if "vjp" in (v.kind for v in pair) else "forward"
            found[which] = dead._replace(kind=kind)
    return sorted(found.values(), key=lambda v: (v.key[0], v.line, v.key))


def faults_of(verdicts: list[Verdict], complete: bool) -> list[str]:
    """Return a sentence for each missed bound and each wrong claim of equivalence."""
    from equivalent import entries

    faults = []
    for kind, required in REQUIRED.items():
        counts = Counter(v.outcome for v in verdicts if v.kind == kind)
        judged = counts["killed"] + counts["survived"]
        if counts["killed"] < required * judged:
            share = counts["killed"] / judged
            faults.append(f"{kind}: {share:.2%} of the mutants are killed, not {required:.0%}")
    equivalent = sum(v.outcome == "equivalent" for v in verdicts)
    if complete and equivalent > MAY_BE_EQUIVALENT * len(verdicts):
        faults.append(f"{equivalent} of {len(verdicts)} mutants are called equivalent: too many")
    for entry in entries():
        judged = [v.outcome for v in verdicts if entry.fits(v.key)]
        if "equivalent" not in judged and (judged or complete):
            what = "all of its mutants are killed" if judged else "there is no such mutant"
            faults.append(f"{entry.file} {entry.function}, {entry.change}: {what}")
    return faults


def table(verdicts: list[Verdict]) -> str:
    """Return a line of figures for each function and for each class, and a line per survivor."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for verdict in verdicts:
        place = f"{verdict.key[0]} {verdict.key[1]}"
        for row in ((verdict.kind, place), (verdict.kind, "all"), ("all", "all")):
            rows.setdefault(row, Counter())[verdict.outcome] += 1
    ordered = sorted(rows, key=lambda row: (row[1] == "all", row[0] == "all", row[1], row[0]))
    header = f"{'function':<44} {'class':<8}  mutants   killed  equivalent  survived"
    lines = [header, "─" * len(header)]
    for kind, place in ordered:
        counts = rows[kind, place]
        lines.append(
            f"{place:<44} {kind:<8} {counts.total():8} {counts['killed']:8} "
            f"{counts['equivalent']:11} {counts['survived']:9}"
        )
    survivors = [v.diff for v in verdicts if v.outcome == "survived"]
    return "\n".join([*lines, *(f"survived: {diff}" for diff in survivors)])


def main() -> int:
    """Judge, print the table, and tell whether the bounds are kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAMES", help="layers, losses, models, numerics"
    )
    parser.add_argument("--json", metavar="FILE", help="write every verdict to a file")
    arguments = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two processes share the cores
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")  # compiles faster

    start = time.perf_counter()
    verdicts = judge_all(arguments.names)
    print(table(verdicts))
    if arguments.json:
        records: list[dict[str, Any]] = [v._asdict() for v in verdicts]
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(records, file, indent=1, ensure_ascii=False)
    faults = faults_of(verdicts, complete=not arguments.names)
    for fault in faults:
        print(fault)
    print(f"{len(verdicts)} mutants in {time.perf_counter() - start:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
