"""What the records of a run hold, as series to draw: whatever is absent or null is left out."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..contract import Array
from ..runs.metrics import Record


class Series(NamedTuple):
    """A figure over the steps at which it was recorded."""

    steps: Array  # (N,), ascending
    values: Array  # (N,), finite


class Table(NamedTuple):
    """A statistic over the steps at which it was recorded, with a column for each name."""

    steps: Array  # (N,), ascending
    names: tuple[str, ...]  # M of them: leaves, sites or blocks
    values: Array  # (N, M); NaN where there is none

    def column(self, name: str) -> Series:
        """Return the series of a name."""
        return _finite(self.steps, self.values[:, self.names.index(name)])


def in_order(records: Iterable[Record]) -> list[Record]:
    """Return the records by step; of a step that was made again, the last."""
    return sorted({record["step"]: record for record in records}.values(), key=_step)


def series(records: Sequence[Record], name: str) -> Series:
    """Return a figure of the records, such as ``"loss"``."""
    steps = np.array([record["step"] for record in records], np.float64)
    return _finite(steps, np.array([_number(record.get(name)) for record in records]))


def table(records: Sequence[Record], name: str) -> Table:
    """Return a statistic of the records, such as ``"grad_norm"``."""
    found = []
    for record in records:
        statistics = record.get("statistics")
        figures = statistics.get(name) if isinstance(statistics, dict) else None
        if isinstance(figures, dict) and figures:
            found.append((record["step"], figures))
    names = tuple(dict.fromkeys(leaf for _, figures in found for leaf in figures))
    values = [[_number(figures.get(leaf)) for leaf in names] for _, figures in found]
    steps = np.array([step for step, _ in found], np.float64)
    return Table(steps, names, np.array(values).reshape(len(found), len(names)))


def by_depth(leaves: Table, combine: Any) -> Table:
    """Return a table with one column for each block and for each part outside of the blocks.

    Args:
        leaves: a column for each leaf.
        combine: maps the columns of a block (N, m) to one (N,); it passes on NaN.

    >>> leaves = Table(np.ones(1), ("embedding.weight", "blocks.0.a", "blocks.0.b"), np.eye(1, 3))
    >>> by_depth(leaves, norm).names
    ('embedding', 'blocks.0')
    """
    groups: dict[str, list[int]] = {}
    for column, leaf in enumerate(leaves.names):
        groups.setdefault(depth_of(leaf), []).append(column)
    columns = [combine(leaves.values[:, members]) for members in groups.values()]
    values = np.array(columns).reshape(len(groups), len(leaves.steps)).T
    return Table(leaves.steps, tuple(groups), values)


def norm(columns: Array) -> Array:
    """Return the norm of each row: that of a block from those of its leaves."""
    return np.hypot.reduce(columns, axis=1)


def median(columns: Array) -> Array:
    """Return the median of each row, of the entries that are there."""
    rows = [row[~np.isnan(row)] for row in columns]
    return np.array([np.median(row) if row.size else math.nan for row in rows])


def depth_of(leaf: str) -> str:
    """Return the block of a leaf, or its first part if it is in none.

    >>> depth_of("blocks.3.mlp.gate"), depth_of("embedding.weight")
    ('blocks.3', 'embedding')
    """
    parts = leaf.split(".")
    for position, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: position + 1])
    return parts[0]


def kind_of(leaf: str) -> str:
    """Return the name of a leaf without the number of its block.

    >>> kind_of("blocks.3.mlp")
    'blocks.*.mlp'
    """
    return ".".join("*" if part.isdecimal() else part for part in leaf.split("."))


def smooth(raw: Series) -> Series:
    """Return the mean over a fortieth of the series around each step: it lags behind nothing."""
    count = len(raw.values)
    window = np.ones(2 * min(count // 80, 500) + 1)
    # Each window is summed anew: a running sum would not get over a loss of 1e30.
    counts = np.convolve(np.ones(count), window, "same") if count else raw.values
    sums = np.convolve(raw.values, window, "same") if count else raw.values
    return _finite(raw.steps, sums / counts)


def thin(raw: Series, limit: int = 2000) -> Series:
    """Return at most so many points: of each stretch the least and the greatest, so spikes stay."""
    if len(raw.values) <= limit:
        return raw
    kept = [
        start + extreme(stretch)
        for start, stretch in _stretches(raw.values, limit // 2)
        for extreme in (np.argmin, np.argmax)
    ]
    chosen = np.unique(kept)
    return Series(raw.steps[chosen], raw.values[chosen])


def _stretches(values: Array, count: int) -> Iterable[tuple[int, Array]]:
    start = 0
    for stretch in np.array_split(values, count):
        yield start, stretch
        start += len(stretch)


def _finite(steps: Array, values: Array) -> Series:
    there = np.isfinite(values)
    return Series(steps[there], values[there])


def _step(record: Record) -> int:
    step: int = record["step"]
    return step


def _number(value: Any) -> float:
    """Return a number as a float, and NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
