"""``functional-lm generate``."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..contract import Array
from ..generation import generate
from ..models import transformer
from ..training import load_run


@dataclasses.dataclass
class Generate:
    """Sample text from a trained model.

    Attributes:
        folder: the folder of a run.
        prompt: the text to go on from.
        max_new_tokens: how many characters to sample.
        temperature: 0 always takes the most likely character.
        top_k: sample from the k most likely characters only.
        seed: of the sampling.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    prompt: str = "\n"
    max_new_tokens: int = 300
    temperature: float = 0.8
    top_k: int | None = None
    seed: int = 0

    def run(self) -> None:
        """Print the prompt and the sample."""
        params, config, tokenizer = load_run(self.folder)
        prompt = tokenizer.encode(self.prompt)

        def next_logits(tokens: Array) -> Array:
            logits, _ = transformer.forward(params, tokens[-config.max_seq_len :], config=config)
            return logits[-1]

        tokens = generate(
            next_logits,
            prompt,
            key=(self.seed,),
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
        )
        print(self.prompt, end="", flush=True)
        for token in tokens:
            print(tokenizer.decode([token]), end="", flush=True)
        print()
