"""Pictures of runs and of learning rates, as pure functions of what was recorded.

A picture leaves out what a run did not record; `not_recorded` names it. In a notebook::

    picture({"my run": read_metrics("runs/my-run/metrics.jsonl")})
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array
from ..runs.metrics import Record
from ..runs.records import Table, by_block, in_order, median, norm, series, table
from .drawing import (
    FORMATS,
    QUIET,
    draw_band,
    draw_layers,
    draw_line,
    draw_raw,
    encode,
    finish,
    label,
    new_figure,
    palette,
    smoothed,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "PANELS", "encode", "figures", "not_recorded", "picture", "rate_picture"]

Runs: TypeAlias = Mapping[str, Sequence[Record]]
"""The records of each run by its name."""

OVERVIEW = 5
"""Panels, the first ones, in a picture; the others are of interest in a single run."""


class Panel(NamedTuple):
    """One set of axes."""

    title: str
    draw: Callable[["Axes", Runs], None]
    recorded: Callable[[Sequence[Record]], bool]


def picture(runs: Runs) -> "Figure":
    """Return one picture of one or several runs.

    The training and the validation loss are on top; below them the learning rate, the norm of the
    gradient, and by layer the norms of the gradients and the sizes of the updates.

    Args:
        runs: at least one.

    Raises:
        ImportError: without matplotlib.
    """
    runs = {name: in_order(records) for name, records in runs.items()}
    first, *others = PANELS[:OVERVIEW]
    shown = [panel for panel in others if any(map(panel.recorded, runs.values()))]
    rows = (len(shown) + 1) // 2
    with styled():
        figure = new_figure(10.0, 4.4 + 3.2 * rows)
        grid = figure.add_gridspec(1 + rows, 2, height_ratios=[4.0] + [3.2] * rows)
        top = figure.add_subplot(grid[0, :])
        first.draw(top, runs)
        for i, panel in enumerate(shown):
            alone = i == len(shown) - 1 and i % 2 == 0
            cell = grid[1 + i // 2, :] if alone else grid[1 + i // 2, i % 2]
            panel.draw(figure.add_subplot(cell, sharex=top), runs)
        _name(figure, runs)
    return figure


def figures(records: Sequence[Record], *, dark: bool = False) -> Iterator[tuple[Panel, "Figure"]]:
    """Yield each panel that a run has figures for, with its picture.

    Raises:
        ImportError: without matplotlib.
    """
    records = in_order(records)
    for panel in PANELS:
        if panel.recorded(records):
            with styled(dark):
                figure = new_figure(10.0 if panel is PANELS[0] else 5.6, 3.4)
                panel.draw(figure.add_subplot(), {"": records})
            yield panel, figure


def rate_picture(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    raw: tuple[Sequence[float], Sequence[float]] | None = None,
    marks: Mapping[str, float] | None = None,
    highest: float | None = None,
) -> "Figure":
    """Return a picture of losses by learning rate.

    Args:
        lines: ``{name: (rates, losses)}``.
        raw: rates and losses to draw faintly behind them.
        marks: ``{name: rate}``, dashed.
        highest: the loss at which the picture ends.

    Raises:
        ImportError: without matplotlib.
    """
    with styled():
        figure = new_figure(6.0, 4.0)
        axes = figure.add_subplot()
        colours = palette(len(lines) + len(marks or {}))
        if raw is not None:
            axes.plot(*raw, color=colours[0], alpha=0.3, label="each batch")
        for colour, (name, line) in zip(colours, lines.items(), strict=False):
            axes.plot(*line, color=colour, label=name, marker="" if raw else "o")
        for colour, (name, rate) in zip(colours[len(lines) :], (marks or {}).items(), strict=True):
            axes.axvline(rate, color=colour, linestyle="--", label=f"{name}: {rate:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, in nats per token")
        if highest is not None:
            axes.set_ylim(axes.dataLim.ymin - 0.1, highest)
        axes.legend()
    return figure


def not_recorded(records: Sequence[Record]) -> list[str]:
    """Return what `picture` would show of a run, had it been recorded."""
    missing = [panel.title for panel in PANELS[:OVERVIEW] if not panel.recorded(records)]
    if not series(records, "val_loss").steps.size:
        missing.insert(0, "validation loss")
    return missing


def _draw_loss(axes: "Axes", runs: Runs) -> None:
    """Draw the training loss, raw and smoothed, the validation loss, and skipped updates."""
    from matplotlib import rcParams

    alone = len(runs) == 1
    for colour, records in _coloured(runs):
        raw, held_out = series(records, "loss"), series(records, "val_loss")
        draw_raw(axes, raw, colour)
        draw_line(axes, smoothed(raw), color=colour, label="training" if alone else "")
        if held_out.steps.size:
            draw_line(
                axes,
                held_out,
                color=palette(2)[1] if alone else colour,
                linestyle="--",
                marker="o" if held_out.steps.size <= 60 else "",
                markersize=4,
                label="validation" if alone else "",
            )
        skipped = [record["step"] for record in records if record.get("fault")]
        if skipped:
            text = f"update skipped ({len(skipped):,})" if alone else ""
            look: dict[str, Any] = {"color": rcParams["text.color"], "clip_on": False}
            look["transform"] = axes.get_xaxis_transform()  # they stand on the lower edge
            axes.plot(skipped, [0.0] * len(skipped), "|", label=text, markersize=11.0, **look)
    if not alone and any(series(records, "val_loss").steps.size for records in runs.values()):
        axes.plot([], [], "--o", color=QUIET, markersize=4, label="validation")
    largest = _keep_in_frame(axes, runs)
    cut = "" if largest is None else f" (rises to {largest:,.4g})"
    finish(axes, "loss, in nats per token" + cut)


def _keep_in_frame(axes: "Axes", runs: Runs) -> float | None:
    """Keep a diverging loss from flattening the rest; return its height if it is cut off."""
    names = ("loss", "val_loss")
    losses = [series(records, name).values for records in runs.values() for name in names]
    losses = [values for values in losses if values.size]
    if not losses:
        return None
    start = max(float(np.median(values[:10])) for values in losses)
    largest, least = (float(pick(np.concatenate(losses))) for pick in (np.max, np.min))
    if start <= 0 or largest <= 2 * start:
        return None
    top = 1.5 * start
    axes.set_ylim(least - 0.05 * (top - least), top)
    return largest


def _single(name: str, title: str, *, log: bool = False, mean: bool = True) -> Panel:
    """Return a panel for a figure of the records."""

    def draw(axes: "Axes", runs: Runs) -> None:
        for colour, records in _coloured(runs):
            raw = series(records, name)
            if mean:
                draw_raw(axes, raw, colour)
            draw_line(axes, smoothed(raw) if mean else raw, color=colour)
        finish(axes, title, log=log)

    return Panel(title, draw, lambda records: series(records, name).steps.size > 0)


def _layered(
    name: str,
    title: str,
    *,
    log: bool = False,
    combine: Callable[[Array], Array] | None = None,
    level: tuple[str, str] = ("", ""),
) -> Panel:
    """Return a panel for a statistic of each layer.

    One run has a line per layer, coloured by depth; each of several runs has the median of its
    layers and the range that they span.

    Args:
        name: of the statistic.
        title: of the panel.
        log: whether to show the logarithm of the values.
        combine: combines the figures of the leaves of a block. None: each has a line.
        level: the name of a statistic to compare with, and its label.
    """

    def read(records: Sequence[Record]) -> Table:
        leaves = table(records, name)
        return by_block(leaves, combine) if combine else leaves

    def draw(axes: "Axes", runs: Runs) -> None:
        if len(runs) == 1:
            draw_layers(axes, read(*runs.values()))
        else:
            for colour, records in _coloured(runs):
                draw_band(axes, read(records), colour)
            axes.plot([], [], color=QUIET, label="median and range of the layers")
        levels = np.concatenate([table(own, level[0]).values.ravel() for own in runs.values()])
        if np.isfinite(levels).any():
            look: dict[str, Any] = {"color": QUIET, "linestyle": ":", "linewidth": 1}
            axes.axhline(np.nanmax(levels), label=level[1], **look)
        finish(axes, title, log=log, legend_below=True)

    return Panel(title, draw, lambda records: bool(np.isfinite(read(records).values).any()))


PANELS = (
    Panel("loss", _draw_loss, lambda records: True),
    _single("lr", "learning rate", mean=False),
    _single("grad_norm", "norm of the gradient (before clipping)", log=True),
    _layered("grad_norm", "norm of the gradient by layer", log=True, combine=norm),
    _layered("update_ratio", "update over weights by layer (medians)", log=True, combine=median),
    _layered("activation_std", "standard deviation of the activations", log=True),
    _layered("activation_mean", "mean of the activations"),
    _layered(
        "attention_entropy",
        "entropy of the attention, in nats",
        level=("attention_uniform", "uniform attention"),
    ),
    _layered("zero_share", "share of dead units"),
    _single("tokens_per_second", "tokens per second"),
)
"""All panels; the first is the largest."""


def _coloured(runs: Runs) -> Iterator[tuple[str, Sequence[Record]]]:
    return zip(palette(len(runs)), runs.values(), strict=True)


def _name(figure: "Figure", runs: Runs) -> None:
    """Name the runs above the panels, and below them what they lack."""
    from matplotlib.lines import Line2D

    if len(runs) == 1:
        figure.suptitle(label(next(iter(runs))), fontsize=13)
    else:
        lines = [Line2D([], [], color=colour, linewidth=3) for colour in palette(len(runs))]
        names = [label(name) for name in runs]
        columns = 4 if max(map(len, names)) < 20 else 2
        figure.legend(lines, names, loc="outside upper center", ncols=columns, fontsize=10)
    missing = sorted(set.intersection(*(set(not_recorded(own)) for own in runs.values())))
    if missing:
        figure.supxlabel(f"not recorded: {', '.join(missing)}", fontsize=9, color=QUIET)
