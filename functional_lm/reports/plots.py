"""Pictures of runs, as pure functions of their records. They need matplotlib, from the extra plot.

What a run did not record is left out of its pictures; `not_recorded` says what that is. In a
notebook::

    picture({"my run": read_metrics("runs/my-run/metrics.jsonl")})
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..runs.metrics import Record
from .drawing import INK, PAPER, QUIET, colours_of, label
from .panels import PANELS, Panel, Runs
from .series import in_order, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")

OVERVIEW = 5
"""So many panels, of the first, are in a picture; the others are of interest in a single run."""

LOOK: dict[str, Any] = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.facecolor": PAPER,
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
"""What differs from the default style of matplotlib."""


def picture(runs: Runs) -> "Figure":
    """Return one picture of one or several runs.

    The loss stands above, with the validation loss; below it the learning rate, the norm of the
    gradient, and by layer the norms of the gradients and the sizes of the updates.

    Args:
        runs: at least one, each with at least one record.

    Raises:
        ImportError: without matplotlib.
    """
    runs = {name: in_order(records) for name, records in runs.items()}
    first, *others = PANELS[:OVERVIEW]
    shown = [panel for panel in others if any(map(panel.recorded, runs.values()))]
    rows = (len(shown) + 1) // 2
    with _styled():
        figure = _figure(10.0, 4.4 + 3.2 * rows)
        grid = figure.add_gridspec(1 + rows, 2, height_ratios=[4.0] + [3.2] * rows)
        top = figure.add_subplot(grid[0, :])
        first.draw(top, runs)
        for i, panel in enumerate(shown):
            alone = i == len(shown) - 1 and i % 2 == 0
            cell = grid[1 + i // 2, :] if alone else grid[1 + i // 2, i % 2]
            panel.draw(figure.add_subplot(cell, sharex=top), runs)
        _name(figure, runs)
    return figure


def figures(records: Sequence[Record]) -> Iterator[tuple[Panel, "Figure"]]:
    """Yield a picture of one run for each panel that it has something for.

    Raises:
        ImportError: without matplotlib.
    """
    records = in_order(records)
    for panel in PANELS:
        if panel.recorded(records):
            with _styled():
                figure = _figure(10.0 if panel is PANELS[0] else 5.6, 3.4)
                panel.draw(figure.add_subplot(), {"": records})
            yield panel, figure


def not_recorded(records: Sequence[Record]) -> list[str]:
    """Return what `picture` would show of a run, if it had been recorded."""
    missing = [panel.title for panel in PANELS[:OVERVIEW] if not panel.recorded(records)]
    if not series(records, "val_loss").steps.size:
        missing.insert(0, "validation loss")
    return missing


def encode(figure: "Figure", suffix: str, *, creator: str, text_as_paths: bool = True) -> bytes:
    """Return a picture as a file: ``.png`` with 150 dots per inch, or ``.svg``.

    Args:
        figure: the picture.
        suffix: one of `FORMATS`.
        creator: the program that the file names.
        text_as_paths: in SVG, so that no font is needed; else text can be searched.
    """
    file = io.BytesIO()
    metadata = {"Software": creator} if suffix == ".png" else {"Creator": creator, "Date": None}
    with _styled(**{"svg.fonttype": "path" if text_as_paths else "none"}):
        figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)
    return file.getvalue()


@contextlib.contextmanager
def _styled(**more: Any) -> Iterator[None]:
    """Draw as this file says, whatever the user's own style, and leave that as it was."""
    try:
        from matplotlib import style
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'functional-lm[plot]'") from None
    with style.context(["default", LOOK | more]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # in a folder's name
        yield


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _name(figure: "Figure", runs: Runs) -> None:
    """Name the runs above the panels, and below them what they lack."""
    from matplotlib.lines import Line2D

    if len(runs) == 1:
        figure.suptitle(label(next(iter(runs))), fontsize=13)
    else:
        lines = [Line2D([], [], color=colour, linewidth=3) for colour in colours_of(len(runs))]
        names = [label(name) for name in runs]
        columns = 4 if max(map(len, names)) < 20 else 2
        figure.legend(lines, names, loc="outside upper center", ncols=columns, fontsize=10)
    each = [set(not_recorded(records)) for records in runs.values()]
    missing = sorted(set.intersection(*each))
    if missing:
        figure.supxlabel(f"not recorded: {', '.join(missing)}", fontsize=9, color=QUIET)
