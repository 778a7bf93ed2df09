"""The records of a run as arrays, for the checks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array
from ..metrics import Record


class History(NamedTuple):
    """A run, one entry for each step; a figure that is not there, or not finite, is NaN."""

    steps: Array  # (N,) numbers of updates, rising
    loss: Array  # (N,)
    lr: Array  # (N,)
    grad_norm: Array  # (N,)
    validations: list[tuple[int, float]]  # step and loss
    statistics: list[tuple[int, dict[str, Any]]]  # step and what `statistics_of` returned
    faults: list[tuple[int, str]]  # step and why its update was skipped
    vocab_size: int | None

    @classmethod
    def of(cls, records: Sequence[Record], vocab_size: int | None) -> "History":
        """Read records; of several of one step, such as after a resumption, the last counts."""
        last = {record["step"]: record for record in records}
        ordered = [last[step] for step in sorted(last)]
        return cls(
            steps=np.array([record["step"] for record in ordered], int),
            loss=_column(ordered, "loss"),
            lr=_column(ordered, "lr"),
            grad_norm=_column(ordered, "grad_norm"),
            validations=[
                (record["step"], number(record["val_loss"]))
                for record in ordered
                if record.get("val_loss") is not None
            ],
            statistics=[
                (record["step"], record["statistics"])
                for record in ordered
                if record.get("statistics")
            ],
            faults=[(record["step"], record["fault"]) for record in ordered if record.get("fault")],
            vocab_size=vocab_size,
        )

    @property
    def finite(self) -> "History":
        """The same without the steps whose loss is not finite."""
        kept = np.isfinite(self.loss)
        return self._replace(
            steps=self.steps[kept],
            loss=self.loss[kept],
            lr=self.lr[kept],
            grad_norm=self.grad_norm[kept],
        )

    @property
    def initial(self) -> dict[str, Any] | None:
        """The statistics of the first update, if they are there: of the initialisation."""
        return self.statistics[0][1] if self.statistics and self.statistics[0][0] == 1 else None


def number(value: Any) -> float:
    """Return a figure as a float; None, which stands for one that is not finite, is NaN."""
    return math.nan if value is None else float(value)


def relative_entropy(statistics: dict[str, Any]) -> dict[str, float]:
    """Return the attention entropy of each block, over that of uniform attention."""
    uniform = statistics.get("attention_uniform", {})
    return {
        block: number(entropy) / uniform[block]
        for block, entropy in statistics.get("attention_entropy", {}).items()
        if uniform.get(block)
    }


def matrices(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the leaves that are matrices, by the names that this house gives.

    Scales and biases are left out: they start at one or zero, whatever the size of the model.
    """
    return {
        leaf: number(figure)
        for leaf, figure in figures.items()
        if leaf.rpartition(".")[2] not in ("scale", "bias")
    }


def running_median(values: Array, width: int) -> Array:
    """Return the median of each value and up to ``width`` − 1 before it."""
    return np.array([np.median(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))])


def _column(records: list[Record], name: str) -> Array:
    return np.array([number(record.get(name)) for record in records], float)
