"""``functional-lm report``."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from ..files import read_json, write_atomic
from ..runs.folder import CONFIG_FILE, EVALUATION_FILE, LAST_FILE, read_config, vocab_size_of
from .output import print
from .runs import PROGRAM, RunFolder, expect_own, read_records

REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a page about a run: its final figures, curves, samples, settings, and a diagnosis.

    The page is one HTML file that needs no network and no script.

    Attributes:
        folder: the folder of the run.
        out: the page. Not given: report.html in the folder of the run.
    """

    folder: RunFolder
    out: Path | None = None

    def run(self) -> int:
        """Write the page; print where it is."""
        from ..health import diagnose
        from ..reports.page import page

        out = self.folder / REPORT_FILE if self.out is None else self.out
        if out.suffix not in (".html", ".htm"):
            raise ValueError(f"out must end in .html: got {out}; pass {out.stem}.html")
        records = read_records(self.folder)
        settings = read_config(self.folder) if (self.folder / CONFIG_FILE).is_file() else {}
        expect_own(out)
        text = page(
            self.folder.resolve().name,
            records,
            settings=settings,
            findings=diagnose(records, vocab_size=vocab_size_of(settings)),
            parameters=_parameters(self.folder / LAST_FILE),
            evaluation=_evaluation(self.folder / EVALUATION_FILE),
            creator=PROGRAM,
        )
        write_atomic(out, text)
        print(f"written to {out}")
        return 0


def _evaluation(path: Path) -> dict[str, Any] | None:
    content = read_json(path) if path.is_file() else None
    return content if isinstance(content, dict) else None


def _parameters(path: Path) -> int | None:
    """Return the number of parameters in a file of weights from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():  # a pipe would never open
            return None
        with safe_open(path, "np") as file:
            names = file.keys()
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError):
        return None
