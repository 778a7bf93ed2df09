"""What a benchmark leaves: a JSON file with every sample, a table, and a plot."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from . import machine
from .process import REMOVED
from .statistics import Summary, ratios, summary

COLUMNS = 110


class Figure(NamedTuple):
    """One measured quantity of one peer."""

    group: str  # such as the name of a setting
    peer: str
    unit: str
    value: Summary
    note: str = ""


class Aim(NamedTuple):
    """A figure derived from others, and what it is to be."""

    group: str
    what: str
    value: Summary
    limit: float | None = None  # not given: for information
    at_most: bool = True
    disturbed: bool = False  # by other processes, so that nothing follows

    @property
    def met(self) -> bool | None:
        """Whether the median is within the limit; None if there is none, or nothing follows."""
        if self.limit is None or self.disturbed:
            return None
        return self.value.median <= self.limit if self.at_most else self.value.median >= self.limit


@dataclasses.dataclass
class Report:
    """The results of a benchmark, in the order in which they came.

    Attributes:
        benchmark: its name.
        figures: what was measured.
        aims: what that shows.
        peers: what each peer says it is.
        missing: why a peer is not there.
        raw: every sample, as JSON.
        machine: where it ran.
    """

    benchmark: str
    figures: list[Figure] = dataclasses.field(default_factory=list)
    aims: list[Aim] = dataclasses.field(default_factory=list)
    peers: dict[str, Any] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    raw: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    machine: dict[str, Any] = dataclasses.field(default_factory=machine.describe)

    def aim(
        self,
        group: str,
        what: str,
        ours: dict[int, float],
        theirs: dict[int, float],
        limit: float | None = None,
        *,
        at_most: bool = True,
        disturbed: bool = False,
    ) -> None:
        """Add a ratio of values by round, if there is a round in which both count."""
        values = ratios(ours, theirs)
        if values:
            self.aims.append(Aim(group, what, summary(values), limit, at_most, disturbed))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        value = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        value["figures"] = [f._replace(value=f.value._asdict())._asdict() for f in self.figures]
        value["aims"] = [
            {**aim._replace(value=aim.value._asdict())._asdict(), "met": aim.met}
            for aim in self.aims
        ]
        return {**value, "variables_removed_from_each_process": list(REMOVED)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Report":
        """Undo `to_json`."""
        names = {field.name for field in dataclasses.fields(cls)}
        kept = {name: part for name, part in value.items() if name in names}
        kept["figures"] = [
            Figure(**{**one, "value": Summary(**one["value"])}) for one in kept["figures"]
        ]
        kept["aims"] = [
            Aim(**{k: v for k, v in one.items() if k != "met"} | {"value": Summary(**one["value"])})
            for one in kept["aims"]
        ]
        return cls(**kept)

    def write(self, folder: Path) -> None:
        """Write ``<benchmark>.json``, ``.txt`` with the tables, and ``.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.benchmark
        path.with_suffix(".json").write_text(json.dumps(self.to_json(), indent=1) + "\n")
        with path.with_suffix(".txt").open("w") as file:
            self.show(Console(file=file, width=COLUMNS))
        from .plot import draw

        draw(self, path.with_suffix(".png"))

    def show(self, console: Console) -> None:
        """Print the tables."""
        versions = {name: version for name, version in self.machine["versions"].items() if version}
        console.print(
            f"{self.machine['cores']} cores of {self.machine['processor']}, "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
        )
        console.print(_figures(self.figures))
        if self.aims:
            console.print(_aims(self.aims))
        for name, reason in self.missing.items():
            console.print(f"not available: {name}: {reason}", markup=False)


def terminal() -> Console:
    """Return where tables are printed; a file is wide enough for them."""
    console = Console()
    return console if console.is_terminal else Console(width=COLUMNS)


def _figures(figures: list[Figure]) -> Table:
    table = Table("", "peer", "median", "quartiles", "n", "unit", "", title_justify="left")
    last = None
    for group, peer, unit, value, note in figures:
        if last not in (None, group):
            table.add_section()
        spread = f"{number(value.low)} – {number(value.high)}"
        shown = "" if group == last else group
        table.add_row(shown, peer, number(value.median), spread, str(value.count), unit, note)
        last = group
    return table


def _aims(aims: list[Aim]) -> Table:
    table = Table("", "in the same rounds", "median", "quartiles", "aim", "")
    last = None
    for aim in aims:
        if last not in (None, aim.group):
            table.add_section()
        sign = "≤" if aim.at_most else "≥"
        table.add_row(
            "" if aim.group == last else aim.group,
            aim.what,
            f"{aim.value.median:.3f}",
            f"{aim.value.low:.3f} – {aim.value.high:.3f}",
            "" if aim.limit is None else f"{sign} {aim.limit:.2f}",
            "DISTURBED" if aim.disturbed else {None: "", True: "met", False: "NOT MET"}[aim.met],
        )
        last = aim.group
    return table


def number(value: float) -> str:
    """Return three significant digits, and all before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
