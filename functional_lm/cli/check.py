"""``functional-lm check``."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from ..contract import expect_choice, expect_fields, expect_int
from ..files import write_atomic
from ..testing import LeafReport, Report, cases, check_layer, names
from ..testing.registry import modules
from ..testing.report import columns, figure
from .flags import Argument
from .output import print


@dataclasses.dataclass(frozen=True)
class Check:
    """Certify layers, losses and models against their JAX twins.

    Attributes:
        layers: those to check, such as rms_norm. Not given: all.
        dtype: float64 or float32. Not given: both.
        seed: of the cotangents and of the redrawn inputs.
        json: a file to write all figures and findings to.
    """

    layers: Annotated[tuple[str, ...], Argument("[LAYER...]")] = ()
    dtype: Literal["float64", "float32"] | None = None
    seed: int = 0
    json: Path | None = None

    def __post_init__(self) -> None:
        dtypes = {"choices": ["float64", "float32"]}
        expect_fields(self, (expect_int, "seed", {"minimum": 0}), (expect_choice, "dtype", dtypes))

    def run(self) -> int:
        """Print a table of the leaves of each layer, then every report that failed."""
        chosen = list(dict.fromkeys(self.layers)) or names()
        for name in chosen:
            modules(name)  # an unknown name or a missing jax is an error before the table
        counts = {name: len(cases(name)) for name in chosen}
        if self.json is not None and not self.json.parent.is_dir():
            raise FileNotFoundError(f"the folder of --json must exist: {self.json.parent} does not")
        dtypes = ("float64", "float32") if self.dtype is None else (self.dtype,)
        start = time.perf_counter()
        reports: dict[str, list[Report]] = {}
        print("\n".join(columns(_HEAD)[:1]), flush=True)
        for name in chosen:
            _progress(f"{name}, {counts[name]} cases ...")
            reports[name] = check_layer(name, seed=self.seed, dtypes=dtypes)
            _progress("")
            print("\n".join(_table(name, reports[name])), flush=True)
        failed = [r for of_layer in reports.values() for r in of_layer if not r]
        for report in failed:
            print(f"\n{report}")
        if self.json is not None:
            layers = {name: [r.to_dict() for r in of] for name, of in reports.items()}
            content = {"ok": not failed, "layers": layers}
            write_atomic(self.json, json.dumps(content, indent=1) + "\n")
        total = sum(counts.values())
        verdict = f"{len(failed)} of {total} cases FAILED" if failed else f"all {total} cases ok"
        print(f"\n{len(chosen)} layers, {verdict}, in {time.perf_counter() - start:.0f} s")
        return 1 if failed else 0


_HEAD: list[tuple[str, ...]] = [  # and the widest that there is
    ("layer and leaf", "f64 error", "f32 error", "over XLA", "ULPs", "residuals", "verdict"),
    ("  params.blocks.0.attention.qkv", "0.0e+00", "0.0e+00", "0.00", "0000", "00,000 B", ""),
]


def _table(name: str, reports: list[Report]) -> list[str]:
    """Return a line for the layer and one for each leaf, the worst of all cases."""
    kept = reports[0].residual_bytes
    size = "-" if kept is None else f"{kept:,} B"
    verdict = "ok" if all(reports) else "FAILED"
    lines = [*_HEAD, (f"{name}, {len(reports)} cases", "", "", "", "", size, verdict)]
    for path in dict.fromkeys(path for report in reports for path in report.leaves):
        lines.append(_row(path, [r.leaves[path] for r in reports if path in r.leaves]))
    return columns(lines)[2:]


def _row(path: str, leaves: list[LeafReport]) -> tuple[str, ...]:
    over = _largest([leaf.over_xla for leaf in leaves if leaf.xla_error])
    ulps = _largest([leaf.ulps for leaf in leaves])
    return (
        f"  {path}",
        figure(_largest([leaf.float64_error for leaf in leaves])),
        figure(_largest([leaf.float32_error for leaf in leaves])),
        "-" if over is None else f"{over:.2f}",
        "-" if ulps is None else f"{ulps:.1f}",
        "",
        "ok" if all(leaf.ok for leaf in leaves) else "WRONG",
    )


def _largest(values: list[float | None]) -> float | None:
    """Return the largest; NaN if there is one."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda value: (value != value, value), default=None)


def _progress(text: str) -> None:
    """Show what is being done, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
