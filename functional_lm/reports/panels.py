"""The panels that pictures of runs are made of: what each draws, and whether there is anything."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array
from ..runs.metrics import Record
from .drawing import (
    COLOURS,
    INK,
    QUIET,
    colours_of,
    draw_band,
    draw_layers,
    draw_line,
    draw_raw,
    finish,
)
from .series import Table, by_depth, median, norm, series, smooth, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Runs: TypeAlias = Mapping[str, Sequence[Record]]
"""The records of each run, in order, by its name."""


class Panel(NamedTuple):
    """One set of axes."""

    title: str
    draw: Callable[["Axes", Runs], None]
    recorded: Callable[[Sequence[Record]], bool]


def draw_loss(axes: "Axes", runs: Runs) -> None:
    """Draw the training loss, raw and smoothed, the validation loss, and skipped updates."""
    alone = len(runs) == 1
    for colour, records in zip(colours_of(len(runs)), runs.values(), strict=True):
        raw, held_out = series(records, "loss"), series(records, "val_loss")
        draw_raw(axes, raw, colour)
        draw_line(axes, smooth(raw), color=colour, label="training" if alone else "")
        if held_out.steps.size:
            draw_line(
                axes,
                held_out,
                color=COLOURS[1] if alone else colour,
                linestyle="--",
                marker="o" if held_out.steps.size <= 60 else "",
                markersize=4,
                label="validation" if alone else "",
            )
        skipped = [record["step"] for record in records if record.get("fault")]
        if skipped:
            edge = axes.get_xaxis_transform()  # the marks stand on the lower edge
            text = f"update skipped ({len(skipped):,})" if alone else ""
            look: dict[str, Any] = {"color": INK, "markersize": 11.0, "clip_on": False}
            axes.plot(skipped, [0.0] * len(skipped), "|", transform=edge, label=text, **look)
    if not alone and any(series(records, "val_loss").steps.size for records in runs.values()):
        axes.plot([], [], "--o", color=QUIET, markersize=4, label="validation")
    largest = _keep_in_frame(axes, runs)
    cut = "" if largest is None else f" (rises to {largest:,.4g})"
    finish(axes, "loss, in nats per token" + cut)


def single(name: str, title: str, *, log: bool = False, smoothed: bool = True) -> Panel:
    """Return a panel for a figure of the records."""

    def draw(axes: "Axes", runs: Runs) -> None:
        for colour, records in zip(colours_of(len(runs)), runs.values(), strict=True):
            raw = series(records, name)
            if smoothed:
                draw_raw(axes, raw, colour)
            draw_line(axes, smooth(raw) if smoothed else raw, color=colour)
        finish(axes, title, log=log)

    return Panel(title, draw, lambda records: series(records, name).steps.size > 0)


def layered(
    name: str,
    title: str,
    *,
    log: bool = False,
    combine: Callable[[Array], Array] | None = None,
    level: tuple[str, str] | None = None,
) -> Panel:
    """Return a panel for a statistic of each layer.

    Of one run it shows a line for each layer, coloured by depth; of several, for each run the
    median of its layers and the range that they span.

    Args:
        name: of the statistic.
        title: of the panel.
        log: whether the values are shown by their logarithm.
        combine: how the figures of the leaves make up that of a block. None: each has a line.
        level: what to compare with: the statistic that holds it, and what the legend says.
    """

    def read(records: Sequence[Record]) -> Table:
        found = table(records, name)
        return by_depth(found, combine) if combine else found

    def draw(axes: "Axes", runs: Runs) -> None:
        if len(runs) == 1:
            draw_layers(axes, read(*runs.values()))
        else:
            for colour, records in zip(colours_of(len(runs)), runs.values(), strict=True):
                draw_band(axes, read(records), colour)
            axes.plot([], [], color=QUIET, label="median and range of the layers")
        if level is not None:
            found = np.concatenate([table(own, level[0]).values.ravel() for own in runs.values()])
            height = float(np.max(found[np.isfinite(found)], initial=-math.inf))
            if math.isfinite(height):
                axes.axhline(height, color=QUIET, linestyle=":", linewidth=1, label=level[1])
        finish(axes, title, log=log, legend_below=True)

    return Panel(title, draw, lambda records: bool(np.isfinite(read(records).values).any()))


PANELS = (
    Panel("loss", draw_loss, lambda records: True),
    single("lr", "learning rate", smoothed=False),
    single("grad_norm", "norm of the gradient (before clipping)", log=True),
    layered("grad_norm", "norm of the gradient by layer", log=True, combine=norm),
    layered("update_ratio", "update over weights by layer (medians)", log=True, combine=median),
    layered("activation_std", "standard deviation of the activations", log=True),
    layered("activation_mean", "mean of the activations"),
    layered(
        "attention_entropy",
        "entropy of the attention, in nats",
        level=("attention_uniform", "all keys alike"),
    ),
    layered("zero_share", "share of dead units"),
    single("tokens_per_second", "tokens per second"),
)
"""All panels; the first is the largest."""


def _keep_in_frame(axes: "Axes", runs: Runs) -> float | None:
    """Keep a loss that diverges from flattening all else; return how high it gets if it is cut."""
    found = [
        series(records, name).values for records in runs.values() for name in ("loss", "val_loss")
    ]
    found = [values for values in found if values.size]
    if not found:
        return None
    start = max(float(np.median(values[:10])) for values in found)
    largest, least = (float(pick(np.concatenate(found))) for pick in (np.max, np.min))
    if start <= 0 or largest <= 2 * start:
        return None
    top = 1.5 * start
    axes.set_ylim(least - 0.05 * (top - least), top)
    return largest
