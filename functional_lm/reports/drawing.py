"""Lines on the axes of a picture: colours, labels, scales, legends. Matplotlib does the drawing."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .series import Series, Table, depth_of, kind_of, median, smooth, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

INK, PAPER, QUIET = "#222223", "#fffffe", "#808182"
"""The colours of text, of what is behind it, and of what stands back; a page puts in its own."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Those of Okabe and Ito (2008), which the colour-blind tell apart, without black and yellow."""

RAMP = ("#0072b2", "#009e73", "#e69f00", "#d55e00")
"""Through some of them, from cold to warm: the first block to the last, and the first run to the
last where there are more than `COLOURS`."""

DASHES = ("-", "--", ":", "-.")
LONGEST_LEGEND = 10


def colours_of(count: int) -> list[str]:
    """Return a colour for each of so many runs."""
    return list(COLOURS[:count]) if count <= len(COLOURS) else ramp(count)


def ramp(count: int) -> list[str]:
    """Return so many colours between those of `RAMP`."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    colours = LinearSegmentedColormap.from_list("depth", RAMP)
    return [to_hex(colours(i / max(1, count - 1))) for i in range(count)]


def label(name: str) -> str:
    """Return a name as a picture can show it: short, printable, and no markup.

    >>> label("_a$b$" + "c" * 60)
    ' _a\\\\$b\\\\$cccccccccccccc…cccccccccccccccccccc'
    """
    name = "".join(c if c.isprintable() else "�" for c in name)
    if len(name) > 40:
        name = f"{name[:19]}…{name[-20:]}"
    if name.startswith("_"):  # of which matplotlib thinks that it is not to be shown
        name = " " + name
    return name.replace("$", r"\$")


def draw_raw(axes: "Axes", raw: Series, colour: str) -> None:
    """Draw a series faintly, to stand behind its mean."""
    axes.plot(*thin(raw), color=colour, alpha=0.3, linewidth=0.7)


def draw_line(axes: "Axes", drawn: Series, **look: Any) -> None:
    """Draw a series; a dot if it is a single point, of which a line shows nothing."""
    if len(drawn.steps) == 1:
        look["marker"] = "o"
    axes.plot(*thin(drawn), **look)


def draw_layers(axes: "Axes", found: Table) -> None:
    """Draw the mean of each column: coloured by block, dashed by kind, grey outside of the blocks.

    Of many blocks the legend names the first, the middle and the last.
    """
    inside = [name for name in found.names if "*" in kind_of(name)]
    outside = [name for name in found.names if "*" not in kind_of(name)]
    kinds = list(dict.fromkeys(map(kind_of, inside)))
    blocks = list(dict.fromkeys(map(depth_of, inside)))
    colours = dict(zip(blocks, ramp(len(blocks)), strict=True))
    few = len(blocks) <= 6
    named = blocks if few else [blocks[0], blocks[len(blocks) // 2], blocks[-1]]
    for name in inside:
        kind, block = kinds.index(kind_of(name)), depth_of(name)
        text = label(name) if kind == 0 and block in named else ""
        look = {"color": colours[block], "linestyle": DASHES[kind % len(DASHES)]}
        draw_line(axes, smooth(found.column(name)), label=text, linewidth=1.1, **look)
    for kind, name in enumerate(kinds[1:], start=1):
        dashes = DASHES[kind % len(DASHES)]
        axes.plot([], [], color=RAMP[0], linestyle=dashes, label=label(name))
    for i, name in enumerate(outside):
        dashes = DASHES[i % len(DASHES)]
        draw_line(
            axes, smooth(found.column(name)), label=label(name), color=QUIET, linestyle=dashes
        )


def draw_band(axes: "Axes", found: Table, colour: str) -> None:
    """Draw the median of the columns and the range that they span."""
    rows = np.isfinite(found.values).any(axis=1)
    steps, values = found.steps[rows], found.values[rows]
    draw_line(axes, smooth(Series(steps, median(values))), color=colour)
    if steps.size:
        low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


def finish(axes: "Axes", title: str, *, log: bool = False, legend_below: bool = False) -> None:
    """Give axes a title, scales and a legend; say so if they are empty."""
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
        _by_logarithm(axes)
    named = [line for line in axes.lines if _is_named(line)]
    if named:
        shown = named[:LONGEST_LEGEND]
        texts = [str(line.get_label()) for line in shown]
        if len(named) > len(shown):
            texts[-1] = f"… and {len(named) - len(shown) + 1} more"
        where: dict[str, Any] = {"loc": "best"}
        if legend_below:
            columns = max(1, min(4, 64 // (max(map(len, texts)) + 6)))
            where = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.21), "borderaxespad": 0.0}
            where |= {"ncols": columns, "handlelength": 1.6, "columnspacing": 1.0, "fontsize": 8}
        axes.legend(shown, texts, **where)


def _by_logarithm(axes: "Axes") -> None:
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


def _is_named(line: "Line2D") -> bool:
    text = str(line.get_label())
    return bool(text) and not text.startswith("_")
