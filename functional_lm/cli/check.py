"""``functional-lm check``."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from ..contract import expect_choice, expect_fields, expect_int
from ..files import write_atomic
from ..models.loading import load, split_reference
from ..prng import integers, normal
from ..testing import LeafReport, Report, cases, check_layer, check_vjp, names
from ..testing.check import DTYPES
from ..testing.registry import modules
from ..testing.report import columns, figure
from ..testing.stages.half_precision import HALF
from .flags import Argument, setting, split_setting
from .output import print

__all__ = ["Check", "progress_bar"]


@dataclasses.dataclass(frozen=True)
class Check:
    """Certify layers, losses and models against their JAX twins, or a layer in a file of yours.

    Attributes:
        layers: the layers to check, such as rms_norm, or one of yours as FILE.py:NAME. Not given:
            all.
        reference: for a layer of yours, a JAX function of the params and x that computes the same,
            as FILE.py:NAME. Not given: differences of its own forward.
        shape: shapes of its inputs, such as x=2,3,5 weight=5,7; a name other than x is a
            parameter. Dots lead into a tree, as in x.q=2,3. With :11 at the end they are integers
            below 11.
        set: its keywords, such as causal=true or eps=1e-5.
        strict: fail for habits that are otherwise notes.
        audit: for a layer of yours, also list what the inputs do not test.
        dtype: the precision. Not given: float64 and float32. A layer in a file may also be checked
            in bfloat16 or float16.
        seed: the seed of the cotangents and of the redrawn inputs.
        json: a file to write all figures and findings to.
    """

    layers: Annotated[tuple[str, ...], Argument("[LAYER...]")] = ()
    reference: str | None = None
    shape: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    strict: bool = False
    audit: bool = False
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None = None
    seed: int = 0
    json: Path | None = None

    def __post_init__(self) -> None:
        dtypes = {"choices": [*DTYPES, *HALF]}
        expect_fields(self, (expect_int, "seed", {"minimum": 0}), (expect_choice, "dtype", dtypes))

    def run(self) -> int:
        """Print a table of the leaves of each layer, then every report that failed."""
        if self.json is not None and not self.json.parent.is_dir():
            raise FileNotFoundError(f"the folder of --json must exist: {self.json.parent} does not")
        dtypes = ("float64", "float32") if self.dtype is None else (self.dtype,)
        if any(split_reference(name)[0].endswith(".py") for name in self.layers):
            return self._check_file(dtypes)
        if self.reference or self.shape or self.set or self.audit:
            raise ValueError(
                "--reference, --shape, --set and --audit are for a layer of yours: got "
                f"{', '.join(self.layers) or 'none'}; give FILE.py:NAME"
            )
        if self.dtype in HALF:
            raise ValueError(
                f"layers of this library compute in float64 and float32: got --dtype {self.dtype}; "
                "give FILE.py:NAME for a layer in half precision"
            )
        chosen = list(dict.fromkeys(self.layers)) or names()
        for name in chosen:
            modules(name)  # an unknown name or a missing jax is an error before the table
        found = {name: cases(name) for name in chosen}
        start = time.perf_counter()
        reports: dict[str, list[Report]] = {name: [] for name in chosen}
        print("\n".join(columns(_HEAD)[:1]), flush=True)
        bar = progress_bar()
        task = bar.add_task("", total=sum(map(len, found.values())))
        with bar:
            for name in chosen:
                for case in found[name]:
                    bar.update(task, description=f"{name}, {case.label}")
                    reports[name] += check_layer(name, case, seed=self.seed, dtypes=dtypes)
                    bar.advance(task)
                bar.stop()  # for the table
                print("\n".join(_table(name, reports[name])), flush=True)
                bar.start()
        failed = [r for of_layer in reports.values() for r in of_layer if not r]
        for report in failed:
            print(f"\n{report}")
        if self.json is not None:
            layers = {name: [r.to_dict() for r in of] for name, of in reports.items()}
            content = {"ok": not failed, "layers": layers}
            write_atomic(self.json, json.dumps(content, indent=1) + "\n")
        total = sum(map(len, reports.values()))
        verdict = f"{len(failed)} of {total} cases FAILED" if failed else f"all {total} cases ok"
        plural, seconds = "s" * (len(chosen) > 1), time.perf_counter() - start
        print(f"\n{len(chosen)} layer{plural}, {verdict}, in {seconds:.0f} s")
        return 1 if failed else 0

    def _check_file(self, dtypes: tuple[str, ...]) -> int:
        """Check one layer from a file at random inputs, and print its report."""
        if len(self.layers) > 1:
            raise ValueError(f"check one FILE.py:NAME at a time: got {', '.join(self.layers)}")
        inputs: dict[str, Any] = {"params": {}, "x": None}
        for i, (name, text) in enumerate(map(split_setting, self.shape)):
            path = name if name.partition(".")[0] in inputs else f"params.{name}"
            *parents, last = path.split(".")
            tree = inputs
            for parent in parents:
                tree[parent] = tree.get(parent) or {}
                tree = tree[parent]
            tree[last] = _drawn((self.seed, i), name, text)
        if inputs["x"] is None:
            raise ValueError("--shape must give the shape of x: add --shape x=2,3,5")
        (name,) = self.layers
        layer = load(name)
        report = check_vjp(
            layer,
            inputs["params"],
            inputs["x"],
            reference=None if self.reference is None else load(self.reference),
            keywords={key: setting(text) for key, text in map(split_setting, self.set)},
            seed=self.seed,
            dtypes=dtypes,
            strict=self.strict,
            audit=self.audit,
            name=name,
        )
        report.reproduce = ""
        print(report)
        if report:
            print(f"  compared with {report.oracle}")
        if self.json is not None:
            write_atomic(self.json, json.dumps(report.to_dict(), indent=1) + "\n")
        return 0 if report else 1


def _drawn(key: tuple[int, ...], name: str, text: str) -> Any:
    """Return normal numbers, or integers, in a shape such as "2,3,5" or "2,3:11"."""
    sizes, colon, below = text.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(",") if size)
        high = int(below) if colon else 1
    except ValueError:
        raise ValueError(
            f"a shape must be integers: got {name}={text}; give {name}=2,3 or {name}=2,3:11"
        ) from None
    return integers(key, shape, low=0, high=high) if colon else normal(key, shape, dtype="float64")


_HEAD: list[tuple[str, ...]] = [  # and the widest that there is
    ("layer and leaf", "f64 error", "f32 error", "over XLA", "ULPs", "verdict"),
    ("  params.blocks.0.attention.qkv", "0.0e+00", "0.0e+00", "0.00", "0000", ""),
]


def _table(name: str, reports: list[Report]) -> list[str]:
    """Return a line for the layer and one for each leaf, the worst of all cases."""
    kept = reports[0].residual_bytes
    size = "" if kept is None else f", {kept:,} B of residuals"
    verdict = "ok" if all(reports) else "FAILED"
    rows = list(_HEAD)
    for path in dict.fromkeys(path for report in reports for path in report.leaves):
        rows.append(_row(path, [r.leaves[path] for r in reports if path in r.leaves]))
    return [f"{name}, {len(reports)} cases{size}: {verdict}", *columns(rows)[2:]]


def _row(path: str, leaves: list[LeafReport]) -> tuple[str, ...]:
    over = _largest([leaf.over_xla for leaf in leaves if leaf.xla_error])
    ulps = _largest([leaf.ulps for leaf in leaves])
    return (
        f"  {path}",
        figure(_largest([leaf.float64_error for leaf in leaves])),
        figure(_largest([leaf.float32_error for leaf in leaves])),
        "-" if over is None else f"{over:.2f}",
        "-" if ulps is None else f"{ulps:.1f}",
        "ok" if all(leaf.ok for leaf in leaves) else "WRONG",
    )


def _largest(values: list[float | None]) -> float | None:
    """Return the largest; NaN if there is one."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda value: (value != value, value), default=None)


def progress_bar() -> Progress:
    """Return a bar on stderr that shows itself on a terminal only, and vanishes when done."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", table_column=Column(width=30, no_wrap=True)),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal,
    )
