"""A page about a run: one HTML file that needs nothing else, no network and no script.

Whatever is in the records and the settings is text there, and never markup.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from ..runs.metrics import Record
from .drawing import COLOURS, INK, PAPER
from .page_style import STYLE
from .plots import encode, figures, not_recorded
from .series import in_order, series

WINDOW = 50
"""Steps that the final loss is the mean of, as where `functional-lm train` shows one."""

OPEN = 3
"""So many samples, of the last, are open when the page is; the first is too."""

OWN_COLOURS = {INK: "currentColor", PAPER: "var(--paper)", COLOURS[0]: "var(--blue)"}
"""What the page has a colour of its own for, one in the light and one in the dark."""


class Sample(NamedTuple):
    """A text that a model wrote."""

    step: int
    text: str


def page(
    name: str,
    records: Sequence[Record],
    *,
    settings: Mapping[str, Any] | None = None,
    findings: Sequence[Any] | None = None,
    samples: Sequence[Sample] = (),
    parameters: int | None = None,
    creator: str = "functional-lm",
) -> str:
    """Return the page.

    Args:
        name: of the run.
        records: at least one.
        settings: the content of config.json.
        findings: what `diagnose` found, each with a ``name``, a ``severity`` (error or warning),
            ``steps`` (the first and the last), ``evidence`` and ``remedy``. None: nobody looked.
        samples: texts that the model wrote, where the records hold none.
        parameters: their number.
        creator: the program that the page names.

    Raises:
        ImportError: without matplotlib.
    """
    records = in_order(records)
    settings = settings or {}
    sections = [
        _final(final_figures(records, settings, parameters)),
        "" if findings is None else _findings(findings),
        _pictures(records, creator),
        _samples(samples_of(records) or samples),
        _settings(settings),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="generator" content="{_text(creator)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing is loaded and no script runs, even if a text managed to look like markup.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(name)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(name)}</h1>\n{''.join(sections)}"
        f"<footer>Written by {_text(creator)}.</footer>\n</main>\n</body>\n</html>\n"
    )


def samples_of(records: Sequence[Record]) -> list[Sample]:
    """Return the samples that are in the records."""
    found = ((record["step"], record.get("sample")) for record in records)
    return [Sample(step, text) for step, text in found if isinstance(text, str)]


def final_figures(
    records: Sequence[Record], settings: Mapping[str, Any], parameters: int | None = None
) -> dict[str, tuple[str, str]]:
    """Return what became of a run, and a remark to each; what was not recorded is left out."""
    training = settings.get("training")
    planned = training.get("steps") if isinstance(training, Mapping) else None
    last = records[-1]["step"]
    early = isinstance(planned, int) and planned > last
    found = {"steps": (f"{last:,}", f"of {planned:,}" if early else "")}
    losses, held_out = series(records, "loss"), series(records, "val_loss")
    if losses.steps.size:
        window = losses.values[-WINDOW:]
        found["training loss"] = (
            _loss(float(window.mean())),
            f"mean of the last {len(window)} steps",
        )
    if held_out.steps.size:
        best = int(held_out.values.argmin())
        loss, where = float(held_out.values[best]), f"at step {held_out.steps[best]:,.0f}"
        at_end = f"at step {held_out.steps[-1]:,.0f}"
        found["validation loss"] = _loss(float(held_out.values[-1])), at_end
        found["best validation loss"] = _loss(loss), where
        found["best perplexity"] = f"{math.exp(min(loss, 700.0)):,.4g}", ""
        found["best bits per token"] = _loss(loss / math.log(2)), ""
    if parameters is not None:
        found["parameters"] = f"{parameters:,}", ""
    speed = series(records, "tokens_per_second").values
    if speed.size:
        found["tokens per second"] = f"{np.median(speed):,.0f}", "median"
    spent = series(records, "step_ms").values
    if spent.size:
        minutes, seconds = divmod(round(float(spent.sum()) / 1000), 60)
        found["time"] = f"{minutes:,}:{seconds:02}", "of all steps together"
    faults = [record["step"] for record in records if record.get("fault")]
    if faults:
        found["updates skipped"] = f"{len(faults):,}", f"the first at step {faults[0]:,}"
    return found


def _final(found: Mapping[str, tuple[str, str]]) -> str:
    cards = [
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)} <small>{_text(remark)}</small></dd></div>\n"
        for name, (value, remark) in found.items()
    ]
    return _section("Final figures", f'<dl class="cards">\n{"".join(cards)}</dl>\n')


def _findings(findings: Sequence[Any]) -> str:
    items = [
        f'<li class="finding {_text(finding.severity)}">\n'
        f"<h3><b>{_text(finding.severity)}</b> {_text(finding.name)}"
        f" <small>{_steps(*finding.steps)}</small></h3>\n"
        f"<p>{_text(finding.evidence)}</p>\n<p>{_text(finding.remedy)}</p>\n</li>\n"
        for finding in findings
    ]
    found = f"<ul>\n{''.join(items)}</ul>\n" if items else "<p>Nothing conspicuous.</p>\n"
    return _section("Diagnosis", found)


def _pictures(records: Sequence[Record], creator: str) -> str:
    drawn = [
        f"<figure>{_inline(encode(figure, '.svg', creator=creator, text_as_paths=False), i)}"
        f"<figcaption>{_text(panel.title)}</figcaption></figure>\n"
        for i, (panel, figure) in enumerate(figures(records))
    ]
    missing = not_recorded(records)
    note = f"<p>Not recorded: {_text(', '.join(missing))}.</p>\n" if missing else ""
    return _section("Curves", f'<div class="pictures">\n{"".join(drawn)}</div>\n{note}')


def _inline(svg: bytes, number: int) -> str:
    """Return a picture to put into a page: in the colours of the page, with ids of its own."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{number}-", text)
    for colour, own in OWN_COLOURS.items():
        text = text.replace(colour, own)
    return text


def _samples(samples: Sequence[Sample]) -> str:
    items = []
    for i, sample in enumerate(samples):
        is_open = " open" if i == 0 or i >= len(samples) - OPEN else ""
        text = _text(sample.text.strip("\n"))
        items.append(
            f"<details{is_open}><summary>Step {sample.step:,}</summary>"
            f'<pre dir="auto">{text}</pre></details>\n'
        )
    shown = "".join(items) or "<p>No samples were recorded.</p>\n"
    return _section("Samples", shown)


def _settings(settings: Mapping[str, Any]) -> str:
    groups = {name: rows for name, rows in settings.items() if isinstance(rows, Mapping) and rows}
    others = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    tables = [_table(name, rows) for name, rows in groups.items()]
    if others:
        tables.append(_table("other", others))
    shown = "".join(tables) or "<p>No settings were recorded.</p>\n"
    return _section("Settings", f'<div class="tables">\n{shown}</div>\n')


def _table(name: str, rows: Mapping[str, Any]) -> str:
    lines = [
        f"<tr><th>{_text(key)}</th><td>{_text(_value(value))}</td></tr>\n"
        for key, value in rows.items()
    ]
    return f"<table>\n<caption>{_text(name)}</caption>\n{''.join(lines)}</table>\n"


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def _value(value: Any) -> str:
    if value is None:
        return "not given"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _steps(first: int, last: int) -> str:
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}</section>\n"


def _text(value: Any) -> str:
    """Return a text as HTML; what a page cannot hold is replaced by a mark."""
    kept = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "�", str(value))
    return escape(kept)
