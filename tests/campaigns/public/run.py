"""Check hand-written backward passes of public repositories in their original form.

python tests/campaigns/public/run.py CLONES [NAME ...]

CLONES is a folder with a clone of each repository that `wrapped.REPOSITORIES` lists; those that are
missing are named and left out. What is in it is executed. None of that code is here: `wrapped` only
wraps it, and holds the formula that it is compared with. Needs jax, torch and a C compiler.
"""

import argparse
import contextlib
import io
import os
import sys
import time
import warnings
from pathlib import Path

from rich.console import Console
from rich.progress import track
from wrapped import LAYERS, REPOSITORIES, Wrapped, imported_from

from functional_lm.testing import Report, check_vjp


def main() -> int:
    """Check all; return 2 if there was nothing to check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clones", type=Path, metavar="CLONES")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of repositories; all if none")
    options = parser.parse_args()
    for name, commit in REPOSITORIES.items():
        if not folder_of(options.clones, name).is_dir():
            print(f"missing: git clone https://github.com/{name}; at {commit[:9]}", file=sys.stderr)
    chosen = [
        layer
        for layer in LAYERS
        if folder_of(options.clones, layer.repository).is_dir()
        and layer.repository in (options.names or [layer.repository])
    ]
    if not chosen:
        return 2
    print("| repository | layer | verdict | seconds |\n|---|---|---|---|")
    for layer in track(chosen, console=Console(stderr=True), transient=True):
        start = time.perf_counter()
        report = checked(layer, options.clones)
        seconds = time.perf_counter() - start
        name = f"{layer.repository} | `{layer.name}`"
        print(f"| {name} | {verdict(report)} | {seconds:.1f} |", flush=True)
    return 0


def folder_of(clones: Path, repository: str) -> Path:
    """Return the clone of a repository."""
    return clones / repository.partition("/")[2]


def checked(layer: Wrapped, clones: Path) -> Report:
    """Check one layer; what its module prints or writes is not kept."""
    quiet = contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings()
    with quiet[0], quiet[1], imported_from(folder_of(clones, layer.repository), layer.paths):
        warnings.simplefilter("ignore")
        made, params, x, keywords = layer.make()
        return check_vjp(
            made, params, x, reference=layer.reference, dtypes=layer.dtypes, keywords=keywords
        )


def verdict(report: Report) -> str:
    """Return "right", or each cause with the leaves that have it."""
    leaves: dict[str, list[str]] = {}
    for leaf, cause in report.causes.items():
        leaves.setdefault(cause, []).append(leaf or "all")
    notes = f" ({len(report.notes)} notes)" if report.notes else ""
    found = "; ".join(f"{cause}: {shortened(names)}" for cause, names in leaves.items())
    return (found or ("right" if report.ok else "wrong")) + notes


def shortened(names: list[str]) -> str:
    """Name the first of many."""
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
