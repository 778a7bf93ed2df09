"""Series and tables of figures from the records of a run, for the diagnosis and the plots.

Records may come from any file. Anything but a finite number reads as NaN.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array
from .metrics import Record

LARGEST_STEP, LARGEST = 2**53, 1e300
"""Larger numbers read as absent, so that sums of figures stay finite."""

FINAL = 50
"""Steps averaged into the final training loss."""

Figures: TypeAlias = dict[str, dict[str, float]]
"""Statistics of one step: ``{"grad_norm": {leaf: figure}, ...}``."""


class Series(NamedTuple):
    """A figure at the steps that recorded it."""

    steps: Array  # (N,), ascending
    values: Array  # (N,), finite


class Table(NamedTuple):
    """A statistic at the steps that recorded it, one column per name."""

    steps: Array  # (N,), ascending
    names: tuple[str, ...]  # M leaves, sites or blocks
    values: Array  # (N, M); NaN where absent

    def column(self, name: str) -> Series:
        """Return the series of one name."""
        return _finite(self.steps, self.values[:, self.names.index(name)])


def in_order(records: Iterable[Record]) -> list[Record]:
    """Return the records by step, the last of each step: a resumed run may repeat some."""
    last = {r["step"]: r for r in records if abs(r.get("step", LARGEST_STEP)) < LARGEST_STEP}
    return [last[step] for step in sorted(last)]


def number(value: Any) -> float:
    """Return a finite number as a float, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        return math.nan
    return float(value)


def steps_of(records: Sequence[Record]) -> Array:
    """Return the steps of the records."""
    return np.array([record["step"] for record in records], np.int64)


def values_of(records: Sequence[Record], name: str) -> Array:
    """Return a figure such as ``"loss"`` of every record, NaN where absent."""
    return np.array([number(record.get(name)) for record in records], np.float64)


def series(records: Sequence[Record], name: str) -> Series:
    """Return a figure such as ``"loss"`` at the steps that recorded it."""
    return _finite(steps_of(records), values_of(records, name))


def statistics_of(record: Record) -> Figures:
    """Return the statistics of a record, {} if it has none."""
    statistics = record.get("statistics")
    if not isinstance(statistics, dict):
        return {}
    return {
        name: {leaf: number(figure) for leaf, figure in figures.items()}
        for name, figures in statistics.items()
        if isinstance(figures, dict)
    }


def table(records: Sequence[Record], name: str) -> Table:
    """Return a statistic such as ``"grad_norm"``."""
    pairs = [(record["step"], statistics_of(record).get(name)) for record in records]
    rows = [(step, figures) for step, figures in pairs if figures]
    names = tuple(dict.fromkeys(leaf for _, figures in rows for leaf in figures))
    values = [[figures.get(leaf, math.nan) for leaf in names] for _, figures in rows]
    steps = np.array([step for step, _ in rows], np.int64)
    return Table(steps, names, np.array(values, np.float64).reshape(len(rows), len(names)))


def by_block(leaves: Table, combine: Callable[[Array], Array]) -> Table:
    """Return a table with one column per block and per part outside of the blocks.

    Args:
        leaves: one column per leaf.
        combine: maps the columns of a block (N, m) to one (N,).

    >>> leaves = Table(np.ones(1), ("embedding.weight", "blocks.0.a", "blocks.0.b"), np.eye(1, 3))
    >>> by_block(leaves, norm).names
    ('embedding', 'blocks.0')
    """
    groups: dict[str, list[int]] = {}
    for column, leaf in enumerate(leaves.names):
        groups.setdefault(block_of(leaf), []).append(column)
    columns = [combine(leaves.values[:, members]) for members in groups.values()]
    values = np.array(columns).reshape(len(groups), len(leaves.steps)).T
    return Table(leaves.steps, tuple(groups), values)


def norm(columns: Array) -> Array:
    """Return the Euclidean norm of each row, NaN if an entry is."""
    return np.hypot.reduce(columns, axis=1)


def median(columns: Array) -> Array:
    """Return the median of each row without its NaNs."""
    rows = [row[~np.isnan(row)] for row in columns]
    return np.array([np.median(row) if row.size else math.nan for row in rows])


def block_of(leaf: str) -> str:
    """Return the block of a leaf, or its first part if it is in none.

    >>> block_of("blocks.3.mlp.down.weight"), block_of("embedding.weight")
    ('blocks.3', 'embedding')
    """
    parts = leaf.split(".")
    for position, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: position + 1])
    return parts[0]


def final_loss(losses: Sequence[float] | Array) -> float:
    """Return the mean of the last `FINAL` losses, NaN if there are none."""
    return float(np.mean(losses[-FINAL:])) if len(losses) else math.nan


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, from an hour on with hours.

    >>> clock(65.2), clock(3 * 3600 + 65)
    ('1:05', '3:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _finite(steps: Array, values: Array) -> Series:
    known = np.isfinite(values)
    return Series(steps[known], values[known])
