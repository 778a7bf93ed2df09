"""A report as bars: a panel for each group, the median with its quartiles for each peer."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Report

OURS, THEIRS = "#c2410c", "#94a3b8"


def draw(report: "Report", path: Path) -> None:
    """Write a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys((figure.group, figure.unit) for figure in report.figures))
    panels = {group: [f for f in report.figures if (f.group, f.unit) == group] for group in groups}
    fig, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, sum(0.6 + 0.28 * len(one) for one in panels.values())),
        height_ratios=[2 + len(one) for one in panels.values()],
        squeeze=False,
        layout="constrained",
    )
    for axis, ((group, unit), figures) in zip(axes[:, 0], panels.items(), strict=True):
        names = [figure.peer for figure in figures]
        medians = [figure.value.median for figure in figures]
        spread = [
            [figure.value.median - figure.value.low for figure in figures],
            [figure.value.high - figure.value.median for figure in figures],
        ]
        colours = [OURS if name.startswith("ours") else THEIRS for name in names]
        axis.barh(names, medians, xerr=spread, color=colours, ecolor="#334155")
        axis.invert_yaxis()
        axis.set_title(f"{group} ({unit})", loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)
    plt.close(fig)
