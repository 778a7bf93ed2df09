"""A page about a run: one HTML file that needs no network and no script.

It needs Jinja2 and matplotlib, from the extra plot. The template escapes whatever comes from the
records and the settings, so none of it becomes markup.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..health import Finding
from ..runs.folder import table_of
from ..runs.metrics import Record
from ..runs.records import FINAL, clock, final_loss, in_order, number, series
from .plots import as_url, figures, not_recorded

OPEN = 3
"""The last samples that are open at first, besides the first one."""


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
    evaluation: Mapping[str, Any] | None = None,
    creator: str = "functional-lm",
) -> str:
    """Return the page.

    Args:
        name: of the run.
        records: at least one.
        settings: the content of config.json.
        findings: those of `diagnose`; None leaves the diagnosis out.
        parameters: their number.
        evaluation: the content of evaluation.json.
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
    groups = {
        name: {key: value for key, value in rows.items() if value is not None}
        for name, rows in settings.items()
        if isinstance(rows, Mapping) and rows
    }
    groups.pop("given", None)  # what is in force follows from it
    others = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    return environment.get_template("page.html").render(
        name=name,
        title=title(settings) or name,
        creator=creator,
        final_figures=final_figures(records, settings, parameters, evaluation),
        findings=findings,
        pictures=_pictures(records, creator),
        not_recorded=", ".join(not_recorded(records)),
        samples=[(r["step"], r["sample"]) for r in records if isinstance(r.get("sample"), str)],
        open_samples=OPEN,
        settings=[*groups.items(), *([("other", others)] if others else [])],
        setting_text=_setting_text,
    )


def title(settings: Mapping[str, Any]) -> str:
    """Return what was trained on what, or "" if the settings do not say.

    >>> title({"architecture": "llama", "text": {"text_file": "/texts/faust.txt"}})
    'llama on faust.txt'
    """
    text = table_of(settings, "text")
    file, source = text.get("text_file"), text.get("source")
    model = settings.get("architecture") or table_of(settings, "model_file").get("name")
    if isinstance(file, str):
        source = Path(file).name
    elif isinstance(source, str):  # without the folder that it is in
        source = re.split(" from |, ", source)[0]
    return f"{model} on {source}" if isinstance(model, str) and isinstance(source, str) else ""


def final_figures(
    records: Sequence[Record],
    settings: Mapping[str, Any],
    parameters: int | None = None,
    evaluation: Mapping[str, Any] | None = None,
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
        ]
        bits = dict(zip(*series(records, "bits_per_byte"), strict=True)).get(steps[best], math.nan)
        whole = number((evaluation or {}).get("loss"))
        if math.isfinite(whole) and (evaluation or {}).get("step") == steps[best]:
            loss, bits = whole, number((evaluation or {}).get("bits_per_byte"))
            results.append(Figure("validation loss on all held-out text", _loss(loss)))
        results.append(Figure("best perplexity", f"{math.exp(min(loss, 700.0)):,.4g}"))
        if math.isfinite(bits):
            results.append(Figure("best bits per byte", _loss(float(bits))))
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


NARROW, DARK = "(max-width: 45rem)", "(prefers-color-scheme: dark)"


def _pictures(
    records: Sequence[Record], creator: str
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return title and picture of each panel, with other pictures by the screens that they are for.

    The pictures are data URLs.
    """
    pictures: list[tuple[str, str, list[tuple[str, str]]]] = []
    for light, dark in zip(figures(records), figures(records, dark=True), strict=True):
        others = [(DARK, as_url(dark[1], creator=creator))]
        if not pictures:  # the wide one would be too small to read
            _, figure = next(figures(records, narrow=True))
            _, dark_figure = next(figures(records, narrow=True, dark=True))
            others[:0] = [
                (f"{NARROW} and {DARK}", as_url(dark_figure, creator=creator)),
                (f"{NARROW} and (prefers-color-scheme: light)", as_url(figure, creator=creator)),
            ]
        pictures.append((light[0].title, as_url(light[1], creator=creator), others))
    return pictures


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def _setting_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(value: Any) -> str:
    """Return a value as text, with a mark for each character that HTML cannot hold."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", str(value))
