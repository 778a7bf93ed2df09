"""``functional-lm plot``."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from ..files import write_atomic
from ..runs import Record
from .flags import Argument
from .output import print
from .runs import PROGRAM, expect_own, find_run, named, read_records

PLOT_FILE = "plot.png"


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the curves of one or several runs into one picture.

    Of several folders, those without a run are left out.

    Attributes:
        folders: the folders of the runs.
        out: the picture, .png or .svg. Not given: plot.png, in the folder of the run if it is one.
    """

    folders: Annotated[tuple[str, ...], Argument("RUN...")]
    out: Path | None = None

    def run(self) -> int:
        """Write the picture; print where it is, and what the runs did not record."""
        from ..reports.plots import FORMATS, encode, not_recorded, picture

        read: dict[Path, list[Record]] = {}
        left_out: list[Exception] = []
        for name in self.folders:
            try:
                folder = find_run(name)
                read[folder] = read_records(folder)
            except (OSError, ValueError) as error:
                left_out.append(error)
        if not read:
            raise left_out[0]
        runs = named(list(read))
        folder = next(iter(read)) if len(runs) == 1 else Path()
        out = folder / PLOT_FILE if self.out is None else self.out
        if out.suffix not in FORMATS:
            raise ValueError(f"out must end in .png or .svg: got {out}; pass {out.stem}.png")
        records = {name: read[folder] for name, folder in runs.items()}
        expect_own(out)
        for reason in left_out:
            print(f"left out: {str(reason).partition(';')[0]}", file=sys.stderr)
        write_atomic(out, encode(picture(records), out.suffix, creator=PROGRAM))
        lacking: dict[tuple[str, ...], list[str]] = {}
        for name, own in records.items():
            lacking.setdefault(tuple(not_recorded(own)), []).append(name)
        for missing, names in lacking.items():
            if missing:
                whose = "" if len(names) == len(records) else f" by {', '.join(names[:3])}"
                whose += f" and {len(names) - 3} more" if whose and len(names) > 3 else ""
                print(f"not recorded{whose}: {', '.join(missing)}")
        print(f"written to {out}")
        return 0
