"""Trains a run, diagnoses it, and compares the findings with the trouble it was given."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from made_text import made_text
from recording import SCALES, records
from scenarios import SCENARIOS

from functional_lm.health import diagnose
from functional_lm.speed.threads import one_thread
from functional_lm.text import load_corpus


class Judged(NamedTuple):
    """A run and its findings."""

    name: str
    scale: str
    text: str
    seed: int
    expected: str | None
    found: list[dict[str, Any]]
    val_loss: float | None

    @property
    def right(self) -> bool:
        """Whether exactly the expected was found."""
        return [one["name"] for one in self.found] == [self.expected] * (self.expected is not None)


def judge(task: tuple[str, str, str, int]) -> Judged:
    """Train a run and diagnose it."""
    name, scale, source, seed = task
    text = made_text(seed) if source == "made" else load_corpus(source).text
    scenario = SCENARIOS[name]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"), one_thread():
        setup = scenario.make(text, SCALES[scale], seed)
        history = list(records(setup))
    found = diagnose(history, vocab_size=setup.experiment.config.vocab_size)
    val_loss = [record.get("val_loss") for record in history][-1]
    return Judged(*task, scenario.finding, [one.as_json() for one in found], val_loss)


def table(runs: list[Judged]) -> str:
    """Return a line for each kind of run, with its findings and how often they were made."""
    lines = [f"{'what was done':27}{'runs':>5}  {'what must be found':24}what was found"]
    for name in dict.fromkeys(run.name for run in runs):
        mine = [run for run in runs if run.name == name]
        counts: Counter[str] = Counter()
        for run in mine:
            counts.update([one["name"] for one in run.found] or ["nothing"])
        said = ", ".join(f"{what} {count}" for what, count in counts.most_common())
        lines.append(f"{name:27}{len(mine):>5}  {mine[0].expected or 'nothing':24}{said}")
    return "\n".join(lines)
