"""A page about a run: one HTML file that needs no network and no script.

It needs Jinja2 and matplotlib, from the extra plot. The template escapes whatever comes from the
records and the settings, so none of it becomes markup.
"""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..health import Finding
from ..runs.folder import table_of
from ..runs.metrics import Record
from ..runs.records import FINAL, clock, final_loss, in_order, series
from .plots import encode, figures, not_recorded

OPEN = 3
"""Of the samples, the last so many are open at first, and the first one."""


class Figure(NamedTuple):
    """A final figure of a run."""

    name: str
    value: str
    remark: str = ""


def page(
    name: str,
    records: Sequence[Record],
    *,
    settings: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] | None = None,
    parameters: int | None = None,
    creator: str = "functional-lm",
) -> str:
    """Return the page.

    Args:
        name: of the run.
        records: at least one.
        settings: the content of config.json.
        findings: those of `diagnose`; None leaves the diagnosis out.
        parameters: their number.
        creator: the program that the page names.

    Raises:
        ImportError: without Jinja2 or matplotlib.
    """
    try:
        import jinja2
    except ImportError:
        raise ImportError("pages need Jinja2: pip install 'functional-lm[plot]'") from None
    records, settings = in_order(records), settings or {}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = {name: rows for name, rows in settings.items() if isinstance(rows, Mapping) and rows}
    others = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    return environment.get_template("page.html").render(
        name=name,
        creator=creator,
        final_figures=final_figures(records, settings, parameters),
        findings=findings,
        pictures=_pictures(records, creator),
        not_recorded=", ".join(not_recorded(records)),
        samples=[(r["step"], r["sample"]) for r in records if isinstance(r.get("sample"), str)],
        open_samples=OPEN,
        settings=[*groups.items(), *([("other", others)] if others else [])],
        setting_text=_setting_text,
    )


def final_figures(
    records: Sequence[Record], settings: Mapping[str, Any], parameters: int | None = None
) -> list[Figure]:
    """Return the results of a run, without those that were not recorded."""
    planned = table_of(settings, "training").get("steps")
    last = records[-1]["step"]
    early = isinstance(planned, int) and planned > last
    results = [Figure("steps", f"{last:,}", f"of {planned:,}" if early else "")]
    losses = series(records, "loss").values
    if losses.size:
        mean = f"mean of the last {min(FINAL, len(losses))} steps"
        results.append(Figure("training loss", _loss(final_loss(losses)), mean))
    steps, held_out = series(records, "val_loss")
    if held_out.size:
        best = held_out.argmin()
        loss = float(held_out[best])
        results += [
            Figure("validation loss", _loss(float(held_out[-1])), f"at step {steps[-1]:,}"),
            Figure("best validation loss", _loss(loss), f"at step {steps[best]:,}"),
            Figure("best perplexity", f"{math.exp(min(loss, 700.0)):,.4g}"),
            Figure("best bits per token", _loss(loss / math.log(2))),
        ]
    if parameters is not None:
        results.append(Figure("parameters", f"{parameters:,}"))
    speed, spent = series(records, "tokens_per_second").values, series(records, "step_ms").values
    if speed.size:
        results.append(Figure("tokens per second", f"{np.median(speed):,.0f}", "median"))
    if spent.size:
        results.append(Figure("time", clock(spent.sum() / 1000), "of all steps together"))
    faults = [record["step"] for record in records if record.get("fault")]
    if faults:
        first = f"the first at step {faults[0]:,}"
        results.append(Figure("updates skipped", f"{len(faults):,}", first))
    return results


def _pictures(records: Sequence[Record], creator: str) -> list[tuple[str, str, str]]:
    """Return title, light and dark picture of each panel, the pictures as data URLs."""
    both = zip(figures(records), figures(records, dark=True), strict=True)
    pictures = []
    for pair in both:
        urls = [
            "data:image/svg+xml;base64,"
            + base64.b64encode(encode(figure, ".svg", creator=creator)).decode()
            for _, figure in pair
        ]
        pictures.append((pair[0][0].title, urls[0], urls[1]))
    return pictures


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def _setting_text(value: Any) -> str:
    if value is None:
        return "not given"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(value: Any) -> str:
    """Return a value as text, with a mark for each character that HTML cannot hold."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", str(value))
