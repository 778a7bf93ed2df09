"""Axes, lines and files with one look, light or dark. They need matplotlib, from the extra plot."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numerics import smooth
from ..runs.records import Series, Table, block_of, median

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        figure.draw_without_rendering()  # a first layout, which may change the ticks
        figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)
    return file.getvalue()


def palette(count: int) -> list[str]:
    """Return a colour for each of so many runs, within `styled`."""
    from matplotlib import rcParams

    colours: list[str] = rcParams["axes.prop_cycle"].by_key()["color"]
    return colours[:count] if count <= len(colours) else ramp(count)


def ramp(count: int) -> list[str]:
    """Return so many colours from cold to warm, within `styled`."""
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
