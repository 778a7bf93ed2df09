"""``functional-lm runs``, and what the commands about runs share."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from .. import __version__
from ..runs import Record, read_metrics
from ..runs.folder import CONFIG_FILE, METRICS_FILE, expect_run, read_config, table_of
from ..runs.records import in_order, series
from .flags import Argument
from .output import print

PROGRAM = f"functional-lm {__version__}"
"""What a written file names as its maker."""

_MARK = b"functional-lm "


def find_run(name: str) -> Path:
    """Return the folder of a run: by its path, that of a file in it, or ``latest``.

    Raises:
        FileNotFoundError: listing the runs here.
    """
    folder = Path(name)
    if name == "latest" and not folder.exists() and (known := runs()):
        return known[0]
    if folder.is_file():
        folder = folder.parent
    if not (folder / METRICS_FILE).is_file():
        try:
            expect_run(folder)
        except FileNotFoundError:
            known = runs()
            some = ", ".join(map(str, known[:5])) + (", ..." if len(known) > 5 else "")
            here = f"the runs here are {some}" if known else "train one with functional-lm train"
            none = "there is no run here yet" if name == "latest" else f"there is no run in {name}"
            raise FileNotFoundError(f"{none}; {here}") from None
    return folder


def runs() -> list[Path]:
    """Return the runs in this folder and in its folder runs, the newest first."""
    folders = [folder for parent in (Path(), Path("runs")) for folder in parent.glob("*/")]
    found = [folder for folder in folders if (folder / CONFIG_FILE).is_file()]
    return sorted(found, key=_last_step, reverse=True)


def _last_step(folder: Path) -> float:
    """Return when a run made its last step, in seconds."""
    path = folder / METRICS_FILE
    return (path if path.is_file() else folder / CONFIG_FILE).stat().st_mtime


RUN = Argument("RUN", find_run)
RunFolder = Annotated[Path, RUN]
"""A run on the command line."""


def read_records(folder: Path) -> list[Record]:
    """Return the records of a run by step.

    Raises:
        OSError: if the folder is not that of a run, or cannot be read.
        ValueError: if there is no record, or a damaged one.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"a run folder must hold {METRICS_FILE}: {folder} does not; pass what --out named"
        )
    records = in_order(read_metrics(path))
    if not records:
        raise ValueError(f"a run must have made a step: {path} has none; wait, or pass another")
    return records


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders by their names, or by their paths where two have one name."""
    folders = list({folder.resolve(): folder for folder in folders}.values())
    names = [folder.resolve().name for folder in folders]
    return {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, folders, strict=True)
    }


def expect_own(out: Path) -> None:
    """Require a file that is new, or that this program wrote.

    Raises:
        OSError: naming the missing folder, or the file that another program wrote.
    """
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"the folder of out must exist: there is no {out.parent}; create it"
        )
    if out.exists() and (not out.is_file() or _MARK not in out.read_bytes()[:4096]):
        raise FileExistsError(
            f"out must be new, or written by this command: {out} is neither; pass another"
        )


@dataclasses.dataclass(frozen=True)
class Runs:
    """List the runs in this folder and in its folder runs, the newest first."""

    def run(self) -> int:
        """Print a line for each."""
        titles = ("run", "text", "model", "steps", "validation", "bits/byte", "age")
        rows = [titles, *map(_row, runs())]
        if not rows[1:]:
            print("no runs here yet; train one with functional-lm train")
            return 0
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return 0


def _row(folder: Path) -> tuple[str, ...]:
    """Return what a run's files say of it, with a dash for what they do not."""
    config: dict[str, Any] = {}
    records: list[Record] = []
    with contextlib.suppress(OSError, ValueError):
        config = read_config(folder)
        records = in_order(read_metrics(folder / METRICS_FILE))
    text = str(table_of(config, "text").get("source", "-"))
    model = config.get("architecture") or table_of(config, "model_file").get("name", "-")
    validations = (series(records, name).values for name in ("val_loss", "bits_per_byte"))
    return (
        str(folder),
        text if len(text) <= 24 else f"...{text[-21:]}",
        str(model),
        f"{records[-1]['step']:,}" if records else "-",
        *(f"{values[-1]:.3f}" if len(values) else "-" for values in validations),
        _age(time.time() - _last_step(folder)),
    )


def _age(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds / size)) > 0:
            return f"{count} {unit}{'s' * (count > 1)}"
    return "now"
