"""``functional-lm report``."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..files import write_atomic
from ..training import Record
from ..training.run_folder import CONFIG_FILE, LAST_FILE, SAMPLE_FILE
from .runs import PROGRAM, expect_own, read_records

REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a page about a run: its final figures, curves, samples, settings, and a diagnosis.

    The page is one HTML file that needs nothing else: no network, no script.

    Attributes:
        folder: the folder of the run.
        out: the page. Not given: report.html in the folder of the run.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path | None = None

    def run(self) -> int:
        """Write the page; say where it is."""
        from ..training.report import page

        out = self.folder / REPORT_FILE if self.out is None else self.out
        if out.suffix not in (".html", ".htm"):
            raise ValueError(f"out must end in .html: got {out}; pass {out.stem}.html")
        records = read_records(self.folder)
        settings = _settings(self.folder / CONFIG_FILE)
        expect_own(out)
        text = page(
            self.folder.resolve().name,
            records,
            settings=settings,
            findings=_findings(records, settings),
            samples=_samples(self.folder / SAMPLE_FILE),
            parameters=_parameters(self.folder / LAST_FILE),
            creator=PROGRAM,
        )
        write_atomic(out, text)
        print(f"written to {out}")
        return 0


def _findings(records: list[Record], settings: dict[str, Any]) -> Any:
    """Return what a look at the records finds; None where there is nobody to look."""
    try:
        from ..training.diagnosis import diagnose  # type: ignore[import-not-found]
    except ImportError:
        return None
    model = settings.get("model")
    vocab_size = model.get("vocab_size") if isinstance(model, dict) else None
    return diagnose(records, vocab_size=vocab_size if isinstance(vocab_size, int) else None)


def _settings(path: Path) -> dict[str, Any]:
    """Return the content of config.json; nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}; restore it from a copy") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold settings by name: got a {type(settings).__name__}")
    return settings


def _samples(path: Path) -> Any:
    """Return the samples of sample.txt, for a run that has none in its records."""
    from ..training.report import Sample

    if not path.is_file():
        return []
    _, *parts = re.split(r"^--- step (\d+)\n", path.read_text("utf-8", "replace"), flags=re.M)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Sample(int(step), text.strip("\n")) for step, text in pairs]


def _parameters(path: Path) -> int | None:
    """Return the number of parameters in a file of weights, of which only the header is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            names = file.keys()
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError):
        return None
