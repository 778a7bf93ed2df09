"""What a check is, what it reads, the history of a run, and what it returns, a finding."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array
from ..runs.metrics import Record
from ..runs.records import Figures, in_order, statistics_of, steps_of, values_of

LEARNED = 0.75
"""Of the loss of guessing at random: a first loss below is that of weights that learned before."""

Severity: TypeAlias = Literal["error", "warning"]
"""An error spoils the run; a warning costs it something."""


class Finding(NamedTuple):
    """One trouble of a run."""

    name: str
    severity: Severity
    steps: tuple[int, int]  # the first and the last at which it shows
    evidence: str  # a sentence with the figures
    remedy: str  # a sentence

    @property
    def when(self) -> str:
        """Its steps in words."""
        first, last = self.steps
        return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"

    def as_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {**self._asdict(), "steps": list(self.steps)}


class History(NamedTuple):
    """A run, one entry per step; an absent or non-finite figure is NaN."""

    steps: Array  # (N,) numbers of updates, ascending
    loss: Array  # (N,)
    lr: Array  # (N,)
    grad_norm: Array  # (N,)
    validations: list[tuple[int, float]]  # step and finite loss
    statistics: list[tuple[int, Figures]]
    faults: list[tuple[int, str]]  # step and why its update was skipped
    vocab_size: int | None

    @classmethod
    def of(cls, records: Sequence[Record], vocab_size: int | None) -> "History":
        """Read records."""
        records = in_order(records)
        steps, held_out = steps_of(records), values_of(records, "val_loss")
        known = np.isfinite(held_out)
        pairs = [(record["step"], statistics_of(record)) for record in records]
        return cls(
            steps=steps,
            loss=values_of(records, "loss"),
            lr=values_of(records, "lr"),
            grad_norm=values_of(records, "grad_norm"),
            validations=list(zip(steps[known].tolist(), held_out[known].tolist(), strict=True)),
            statistics=[(step, figures) for step, figures in pairs if figures],
            faults=[(r["step"], str(r["fault"])) for r in records if r.get("fault")],
            vocab_size=vocab_size,
        )

    @property
    def finite(self) -> "History":
        """The same without the steps whose loss is not finite."""
        kept = np.isfinite(self.loss)
        columns = {name: getattr(self, name)[kept] for name in ("steps", "loss", "lr", "grad_norm")}
        return self._replace(**columns)

    @property
    def initial(self) -> Figures | None:
        """The statistics of the first update, if recorded: those of the initialisation.

        None for a run that starts from trained weights, whose first loss is far below chance.
        """
        chance = math.log(self.vocab_size) if self.vocab_size else 0.0
        if len(self.loss) and self.loss[0] < LEARNED * chance:
            return None
        return self.statistics[0][1] if self.statistics and self.statistics[0][0] == 1 else None


class Sign(NamedTuple):
    """A piece of evidence for a trouble."""

    first: int  # step
    last: int
    evidence: str
    severity: Severity | None = None  # if other than that of its check
    remedy: str = ""  # if other than that of its check


class Check(NamedTuple):
    """How one trouble is found: a function of a history."""

    name: str
    look: Callable[[History], Iterator[Sign]]
    needs: str  # the part of the records that it reads
    remedy: str
    severity: Severity = "error"
    explains: tuple[str, ...] = ()  # its consequences, which are not reported beside it

    def __call__(self, history: History) -> Finding | None:
        """Return the finding, or None."""
        signs = list(self.look(history)) if len(history.steps) else []
        if not signs:
            return None
        severities = {sign.severity or self.severity for sign in signs}
        return Finding(
            self.name,
            "error" if "error" in severities else "warning",
            (int(min(sign.first for sign in signs)), int(max(sign.last for sign in signs))),
            ", and ".join(sign.evidence for sign in signs),
            signs[0].remedy or self.remedy,
        )


def check(name: str, **about: Any) -> Callable[[Callable[[History], Iterator[Sign]]], Check]:
    """Return a decorator that makes a check of a function; the keywords are fields of `Check`."""
    return lambda look: Check(name, look, **about)


def attention(figures: Figures) -> dict[str, tuple[float, float]]:
    """Return the entropy of each block's attention, and that of uniform attention."""
    uniform = figures.get("attention_uniform", {})
    return {
        block: (entropy, uniform[block])
        for block, entropy in figures.get("attention_entropy", {}).items()
        if uniform.get(block, 0.0) > 0
    }


def stream(figures: Figures) -> dict[str, float]:
    """Return the standard deviation of the residual stream after each block, ``blocks.0`` etc."""
    spreads = figures.get("activation_std", {})
    return {site: spread for site, spread in spreads.items() if re.fullmatch(r"[^.]+\.\d+", site)}


def running_median(values: Array, width: int) -> Array:
    """Return the median of each value and up to ``width`` − 1 before it."""
    return np.array([np.median(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))])
