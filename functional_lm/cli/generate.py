"""``functional-lm generate``."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from ..contract import Key, expect_int
from ..generation import (
    Decoder,
    Model,
    Transform,
    chain,
    generate,
    generate_batch,
    min_p,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
    until_stop,
)
from ..runs import Run, open_run

BATCH = 32
"""Samples that are made at once: each has a cache of its own."""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Sample text from a trained model. The text goes to stdout, all else to stderr.

    A text may become longer than the model's max_seq_len: whenever what the model sees has grown
    to that length, it lets go of about the first half.

    Attributes:
        folder: the folder of a run.
        prompt: the text to go on from. Not given: a new line.
        max_new_tokens: how many characters to sample.
        temperature: 0 always takes the most likely character; several are shown side by side.
        top_k: sample from the k most likely characters only.
        top_p: sample from the fewest characters whose probabilities reach p.
        min_p: sample from characters at least p times as likely as the most likely one.
        repetition_penalty: above 1: makes characters that came before less likely.
        stop: end at any of these strings, which are left out.
        num_samples: how many samples for each temperature.
        seed: of the sampling.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    prompt: str | None = None
    max_new_tokens: int = 300
    temperature: tuple[float, ...] = (0.8,)
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    num_samples: int = 1
    seed: int = 0

    def run(self) -> int:
        """Print the prompt and its continuation, or a table of several."""
        expect_int("num_samples", self.num_samples)
        expect_int("max_new_tokens", self.max_new_tokens, minimum=0)
        expect_int("seed", self.seed, minimum=0)
        if not self.temperature:
            raise ValueError("temperature must be at least one number: got none; pass 0.8")
        transforms = [self._transform(value) for value in self.temperature]
        if self.prompt == "":
            raise ValueError("a prompt must have at least one character: got ''; pass some text")
        run = open_run(self.folder)
        characters = run.tokenizer.characters
        default = "\n" if "\n" in characters else characters[0]
        prompt = default if self.prompt is None else self.prompt
        run.tokenizer.encode(prompt)  # before anything is written
        if len(transforms) == self.num_samples == 1:
            self._stream(run, prompt, transforms[0])
        else:
            self._print_table(run, prompt, transforms)
        return 0

    def _transform(self, value: float) -> Transform | None:
        """Return how the logits change at a temperature; None: take the most likely character."""
        penalty = self.repetition_penalty
        transforms = [] if penalty is None else [repetition_penalty(penalty)]
        transforms.append(temperature(value))
        if self.top_k is not None:
            transforms.append(top_k(self.top_k))
        if self.top_p is not None:
            transforms.append(top_p(self.top_p))
        if self.min_p is not None:
            transforms.append(min_p(self.min_p))
        greedy = value == 0.0 and penalty is None  # the others leave the most likely one in
        return None if greedy else chain(*transforms)

    def _stream(self, run: Run, prompt: str, transform: Transform | None) -> None:
        """Print the prompt, and each character when it is there."""
        tokens = generate(
            Decoder(run.model, run.params),
            run.tokenizer.encode(prompt),
            key=None if transform is None else (self.seed,),
            max_new_tokens=self.max_new_tokens,
            transform=transform,
        )
        sys.stdout.write(prompt)
        for piece in until_stop((run.tokenizer.decode([token]) for token in tokens), self.stop):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")

    def _print_table(self, run: Run, prompt: str, transforms: list[Transform | None]) -> None:
        """Print a column for each temperature and a row for each sample."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(show_lines=True)
        for value in self.temperature:
            table.add_column(f"temperature {value:g}", ratio=1, overflow="fold")
        seeds: list[Key] = [(self.seed,)]
        seeds += [(self.seed, 0, i) for i in range(1, self.num_samples)]
        wanted = [(seed, transform) for seed in seeds for transform in transforms]
        model, cells = Decoder(run.model, run.params), []
        for i in range(0, len(wanted), BATCH):
            cells += self._sample(run, model, prompt, wanted[i : i + BATCH])
        for i in range(0, len(cells), len(transforms)):
            row = cells[i : i + len(transforms)]
            table.add_row(*(Text(prompt + cell) for cell in row))
        Console(file=sys.stdout).print(table)

    def _sample(
        self, run: Run, model: Model, prompt: str, wanted: list[tuple[Key, Transform | None]]
    ) -> list[str]:
        """Return a continuation for each key and transform, all sampled at once."""
        transforms = [transform for _, transform in wanted]
        keys = [None if transform is None else seed for seed, transform in wanted]
        texts = [""] * len(wanted)
        for tokens in generate_batch(
            model,
            [run.tokenizer.encode(prompt)] * len(wanted),
            keys=keys,
            max_new_tokens=self.max_new_tokens,
            transforms=transforms,
        ):
            pairs = zip(texts, run.tokenizer.decode(tokens), strict=True)
            texts = [text + character for text, character in pairs]
            if all(any(stop in text for stop in self.stop) for text in texts):
                break
        return ["".join(until_stop([text], self.stop)) for text in texts]
