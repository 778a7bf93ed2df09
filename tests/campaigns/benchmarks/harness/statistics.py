"""Medians with their spread, and ratios of peers that ran in the same round."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Summary(NamedTuple):
    """A median and its quartiles."""

    median: float
    low: float
    high: float
    count: int

    def scaled(self, factor: float) -> "Summary":
        """Return the summary of the values times a positive factor."""
        return Summary(self.median * factor, self.low * factor, self.high * factor, self.count)


def summary(values: Sequence[float]) -> Summary:
    """Return median and quartiles.

    Raises:
        ValueError: for no values.
    """
    if not values:
        raise ValueError("a summary needs at least one value: got none")
    if len(values) == 1:
        return Summary(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high, len(values))


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Return ours over theirs for each round in which both have a value."""
    return [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]
