"""Pictures of runs and of learning rates, as pure functions of what was recorded.

They need matplotlib, from the extra plot. A picture leaves out what a run did not record;
`not_recorded` names it. In a notebook::

    picture({"my run": read_metrics("runs/my-run/metrics.jsonl")})
"""

import base64
import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array
from ..numerics import smooth
from ..runs.metrics import Record
from ..runs.records import Series, Table, block_of, by_block, in_order, median, norm, series, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "PANELS", "encode", "figures", "not_recorded", "picture", "rate_picture"]

Runs: TypeAlias = Mapping[str, Sequence[Record]]
"""The records of each run by its name."""

OVERVIEW = 6
"""Panels, the first ones, in a picture; the others are of interest in a single run."""


FORMATS = (".png", ".svg")

QUIET = "#808182"
"""Grey, for the background."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Those of Okabe and Ito (2008), which the colour-blind tell apart, without black and yellow."""

DARK = {"#0072b2": "#3f9fdf", "#222222": "#e6e8eb", "#ffffff": "#1b1e22"}
"""Replacements on a dark ground."""

RAMP = (0, 2, 4, 1)
"""Of `COLOURS`, from cold to warm, for depth or for many runs."""

DASHES = ("-", "--", ":", "-.")
LONGEST_LEGEND, MOST_POINTS = 10, 2000

LOOK: dict[str, Any] = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "#ffffff"),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), "#222222"),
    **dict.fromkeys(("xtick.color", "ytick.color"), "#222222"),
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "axes.grid": True,
    "grid.color": QUIET,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "functional_lm",  # the same picture has the same bytes
}
"""The differences from matplotlib's default style."""


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


def figures(
    records: Sequence[Record], *, dark: bool = False, narrow: bool = False
) -> Iterator[tuple[Panel, "Figure"]]:
    """Yield each panel that a run has figures for, with its picture; the first one is the widest.

    Args:
        records: of the run.
        dark: whether they are for a dark ground.
        narrow: whether they are for a telephone; then all have one width.

    Raises:
        ImportError: without matplotlib.
    """
    records = in_order(records)
    for panel in PANELS:
        if panel.recorded(records):
            with styled(dark):
                figure = new_figure(10.0 if panel is PANELS[0] and not narrow else 5.6, 3.4)
                panel.draw(figure.add_subplot(), {"": records})
            yield panel, figure


def rate_picture(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    raw: tuple[Sequence[float], Sequence[float]] | None = None,
    marks: Mapping[str, float] | None = None,
    highest: float | None = None,
    xlabel: str = "learning rate",
    ylabel: str = "loss, in nats per token",
    log: bool = True,
) -> "Figure":
    """Return a picture of losses by learning rate, or by another setting.

    Args:
        lines: ``{name: (rates, losses)}``.
        raw: rates and losses to draw faintly behind them.
        marks: ``{name: rate}``, dashed.
        highest: the loss at which the picture ends.
        xlabel: the setting, in words.
        ylabel: the loss, in words.
        log: whether its axis is logarithmic.

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
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            axes.set_xscale("log")
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
    _single("bits_per_byte", "bits per byte of the held-out text", mean=False),
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


# The look.


@contextlib.contextmanager
def styled(dark: bool = False) -> Iterator[None]:
    """Draw in this look, whatever the user's own style, and restore that.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib import style
        from matplotlib.rcsetup import cycler
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'functional-lm[plot]'") from None
    own = DARK if dark else {}
    look = {name: own.get(value, value) for name, value in LOOK.items()}
    look["axes.prop_cycle"] = cycler(color=[own.get(colour, colour) for colour in COLOURS])
    with style.context(["default", look]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # in a folder's name
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def encode(figure: "Figure", suffix: str, *, creator: str) -> bytes:
    """Return a figure as a file of one of the `FORMATS`, which names the program that made it."""
    file = io.BytesIO()
    metadata = {"Software": creator} if suffix == ".png" else {"Creator": creator, "Date": None}
    with styled():
        if layout := figure.get_layout_engine():
            layout.execute(figure)  # a first time, which may change the ticks
        figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)
    return file.getvalue()


def as_html(name: str, records: Sequence[Record]) -> str | None:
    """Return the picture of a run as an HTML image, for a notebook; None without matplotlib."""
    try:
        return f'<img src="{as_url(picture({name: records}))}"/>'
    except ImportError:
        return None


def as_url(figure: "Figure", *, creator: str = "functional-lm") -> str:
    """Return a figure as a data URL."""
    data = base64.b64encode(encode(figure, ".svg", creator=creator)).decode()
    return f"data:image/svg+xml;base64,{data}"


def palette(count: int) -> list[str]:
    """Return that many colours for runs, within `styled`."""
    from matplotlib import rcParams

    colours: list[str] = rcParams["axes.prop_cycle"].by_key()["color"]
    return colours[:count] if count <= len(colours) else ramp(count)


def ramp(count: int) -> list[str]:
    """Return that many colours from cold to warm, within `styled`."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    colours = palette(len(COLOURS))
    between = LinearSegmentedColormap.from_list("depth", [colours[i] for i in RAMP])
    return [to_hex(between(i / max(1, count - 1))) for i in range(count)]


def label(name: str) -> str:
    """Return a name as a picture can show it: short, printable, and no markup.

    >>> label("_a$b$" + "c" * 60)
    ' _a\\\\$b\\\\$cccccccccccccc…cccccccccccccccccccc'
    """
    name = "".join(c if c.isprintable() else "�" for c in name)
    if len(name) > 40:
        name = f"{name[:19]}…{name[-20:]}"
    if name.startswith("_"):  # matplotlib hides such labels
        name = " " + name
    return name.replace("$", r"\$")


def draw_raw(axes: "Axes", raw: Series, colour: str) -> None:
    """Draw a series faintly, to stand behind its mean."""
    axes.plot(*thin(raw), color=colour, alpha=0.3, linewidth=0.7)


def draw_line(axes: "Axes", line: Series, **look: Any) -> None:
    """Draw a series; a dot if it is a single point, of which a line shows nothing."""
    if len(line.steps) == 1:
        look["marker"] = "o"
    axes.plot(*thin(line), **look)


def draw_layers(axes: "Axes", layers: Table) -> None:
    """Draw the mean of each column: coloured by block, dashed by kind, grey outside of the blocks.

    Of many blocks the legend names the first, the middle and the last.
    """
    inside = [name for name in layers.names if "*" in _kind(name)]
    outside = [name for name in layers.names if "*" not in _kind(name)]
    kinds = list(dict.fromkeys(map(_kind, inside)))
    blocks = list(dict.fromkeys(map(block_of, inside)))
    colours = dict(zip(blocks, ramp(len(blocks)), strict=True))
    few = len(blocks) <= 6
    named = blocks if few else [blocks[0], blocks[len(blocks) // 2], blocks[-1]]
    for name in inside:
        block, kind = block_of(name), kinds.index(_kind(name))
        text = label(name) if kind == 0 and block in named else ""
        look: dict[str, Any] = {"color": colours[block], "linestyle": DASHES[kind % len(DASHES)]}
        draw_line(axes, smoothed(layers.column(name)), label=text, linewidth=1.1, **look)
    for kind, name in enumerate(kinds[1:], start=1):
        look = {"color": palette(1)[0], "linestyle": DASHES[kind % len(DASHES)]}
        axes.plot([], [], label=label(name), **look)
    for i, name in enumerate(outside):
        look = {"color": QUIET, "linestyle": DASHES[i % len(DASHES)]}
        draw_line(axes, smoothed(layers.column(name)), label=label(name), **look)


def draw_band(axes: "Axes", layers: Table, colour: str) -> None:
    """Draw the median of the columns and the range that they span."""
    rows = np.isfinite(layers.values).any(axis=1)
    steps, values = layers.steps[rows], layers.values[rows]
    draw_line(axes, smoothed(Series(steps, median(values))), color=colour)
    if steps.size:
        low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


def finish(axes: "Axes", title: str, *, log: bool = False, legend_below: bool = False) -> None:
    """Give axes over steps a title, scales and a legend; mark them if they are empty."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set(title=title, xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: f"{step:,.0f}" if step == round(step) else "")
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    data = [line for line in axes.lines if line.get_transform() == axes.transData]
    if not any(np.size(line.get_xdata()) for line in data):
        axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)
    if axes.dataLim.ymin == axes.dataLim.ymax == 0:  # a share, say: not from -0.05 to 0.05
        axes.set_ylim(-0.02, 1.0)
    if log:
        _log_scale(axes)
    handles, texts = axes.get_legend_handles_labels()
    if len(texts) > LONGEST_LEGEND:
        more = len(texts) - LONGEST_LEGEND + 1
        texts[LONGEST_LEGEND - 1 :] = [f"… and {more} more"]
    where: dict[str, Any] = {"loc": "best"}
    if legend_below and texts:
        columns = max(1, min(4, 64 // (max(map(len, texts)) + 6)))
        where = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.21), "borderaxespad": 0.0}
        where |= {"ncols": columns, "handlelength": 1.6, "columnspacing": 1.0, "fontsize": 8}
    if texts:
        axes.legend(handles[: len(texts)], texts, **where)


def smoothed(raw: Series) -> Series:
    """Return the mean over a fortieth of the series around each step, without a lag."""
    return Series(raw.steps, smooth(raw.values, 2 * min(len(raw.values) // 80, 500) + 1))


def thin(raw: Series) -> Series:
    """Return at most `MOST_POINTS`: the least and the greatest of each stretch, so spikes stay."""
    if len(raw.values) <= MOST_POINTS:
        return raw
    stretches = np.array_split(np.arange(len(raw.values)), MOST_POINTS // 2)
    pairs = [(of[raw.values[of].argmin()], of[raw.values[of].argmax()]) for of in stretches]
    kept = np.unique(pairs)
    return Series(raw.steps[kept], raw.values[kept])


def _kind(name: str) -> str:
    """Return a name without the number of its block: ``blocks.*.mlp``."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _log_scale(axes: "Axes") -> None:
    """Show values by their logarithm if they span more than a factor of three."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    span = axes.dataLim.ymax / axes.dataLim.minposy
    if span > 3:
        between = (2, 5) if span > 6 else range(2, 10)
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(LogLocator(subs=list(between)))
        axes.yaxis.set_minor_formatter(
            NullFormatter() if span > 100 else StrMethodFormatter("{x:g}")
        )
