"""The records of a run as arrays, for the checks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array
from ..runs.metrics import Record

LAST_STEP, LARGEST = 2**53, 1e300
"""Beyond these, a number in a file is no figure of a run."""

Figures: TypeAlias = dict[str, dict[str, float]]
"""What `statistics_of` returned, with NaN for None, and ``{}`` for a kind that is not there."""

KINDS = (
    "grad_norm",
    "update_ratio",
    "activation_std",
    "zero_share",
    "attention_entropy",
    "attention_uniform",
)


class History(NamedTuple):
    """A run, one entry for each step; a figure that is not there, or not finite, is NaN."""

    steps: Array  # (N,) numbers of updates, rising
    loss: Array  # (N,)
    lr: Array  # (N,)
    grad_norm: Array  # (N,)
    validations: list[tuple[int, float]]  # step and finite loss
    statistics: list[tuple[int, Figures]]  # step and figures
    faults: list[tuple[int, str]]  # step and why its update was skipped
    vocab_size: int | None

    @classmethod
    def of(cls, records: Sequence[Record], vocab_size: int | None) -> "History":
        """Read records, which may hold anything; of several of one step the last counts."""
        last = {
            record["step"]: record for record in records if 0 < record.get("step", 0) < LAST_STEP
        }
        ordered = [last[step] for step in sorted(last)]
        validations = [(record["step"], number(record.get("val_loss"))) for record in ordered]
        return cls(
            steps=np.array([record["step"] for record in ordered], int),
            loss=_column(ordered, "loss"),
            lr=_column(ordered, "lr"),
            grad_norm=_column(ordered, "grad_norm"),
            validations=[(step, loss) for step, loss in validations if math.isfinite(loss)],
            statistics=[
                (record["step"], _figures(record["statistics"]))
                for record in ordered
                if isinstance(record.get("statistics"), dict)
            ],
            faults=[
                (record["step"], str(record["fault"])) for record in ordered if record.get("fault")
            ],
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
    def initial(self) -> Figures | None:
        """The statistics of the first update, if they are there: of the initialisation."""
        return self.statistics[0][1] if self.statistics and self.statistics[0][0] == 1 else None


def number(value: Any) -> float:
    """Return a figure as a float, NaN for what is none; None stands for one that is not finite."""
    if not isinstance(value, (int, float)) or abs(value) > LARGEST:
        return math.nan
    return float(value)


def relative_entropy(figures: Figures) -> dict[str, float]:
    """Return the attention entropy of each block, over that of uniform attention."""
    uniform = figures["attention_uniform"]
    return {
        block: entropy / uniform[block]
        for block, entropy in figures["attention_entropy"].items()
        if uniform.get(block, 0.0) > 0
    }


def stream(figures: Figures) -> dict[str, float]:
    """Return the spread of the residual stream after each block of a transformer."""
    spreads = figures["activation_std"]
    return {block: spreads[block] for block in figures["attention_entropy"] if block in spreads}


def matrices(figures: dict[str, float]) -> dict[str, float]:
    """Return the figures of the leaves that are matrices, by the names that this house gives.

    Scales and biases are left out: they start at one or zero, whatever the size of the model.
    """
    return {
        leaf: figure
        for leaf, figure in figures.items()
        if leaf.rpartition(".")[2] not in ("scale", "bias")
    }


def running_median(values: Array, width: int) -> Array:
    """Return the median of each value and up to ``width`` − 1 before it."""
    return np.array([np.median(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))])


def _column(records: list[Record], name: str) -> Array:
    return np.array([number(record.get(name)) for record in records], float)


def _figures(statistics: dict[str, Any]) -> Figures:
    kinds = {kind: statistics.get(kind) for kind in KINDS}
    return {
        kind: {name: number(figure) for name, figure in found.items()}
        if isinstance(found, dict)
        else {}
        for kind, found in kinds.items()
    }
