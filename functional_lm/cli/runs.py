"""What the commands about runs share: reading their records, and where they may write."""

from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..runs import Record, read_metrics
from ..runs.folder import METRICS_FILE
from ..runs.records import in_order

PROGRAM = f"functional-lm {__version__}"
"""What a written file names as its maker."""

_MARK = b"functional-lm "


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
