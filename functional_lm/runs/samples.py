"""Texts that a model writes while it trains."""

from pathlib import Path

from ..contract import Tree
from ..files import write_atomic
from ..generation import temperature
from ..training.experiment import Experiment
from .folder import SAMPLE_FILE
from .metrics import Record

LENGTH = 300


def sample(experiment: Experiment, params: Tree) -> str:
    """Return a text that a model writes from the tokenizer's default prompt."""
    text = experiment.sample(
        params,
        experiment.tokenizer.default_prompt,
        key=(experiment.settings.seed, 3),
        max_new_tokens=LENGTH,
        transform=temperature(0.8),
    )
    return text.strip()


def write_samples(run: str | Path, records: list[Record]) -> None:
    """Write the samples in the records of a run to its sample.txt, one below the other."""
    texts = [f"--- step {r['step']}\n{r['sample']}\n" for r in records if "sample" in r]
    write_atomic(Path(run) / SAMPLE_FILE, "\n".join(texts))
