"""``functional-lm generate``."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from ..contract import Key, expect_fields, expect_int
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
from .runs import RunFolder

BATCH = 32
"""Samples that are made at once: each has a cache of its own."""

TRANSFORMS: dict[str, Callable[[Any], Transform]] = {
    one.__name__: one for one in (repetition_penalty, temperature, top_k, top_p, min_p)
}
"""What the flags of these names do to the logits, in this order."""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Sample text from a trained model. The text goes to stdout, all else to stderr.

    The text may become longer than the model's max_seq_len: whenever the context has grown to that
    length, the model drops about the older half of it.

    Attributes:
        folder: the folder of a run.
        prompt: the text to continue. Not given: a new line.
        max_new_tokens: how many tokens to sample.
        temperature: 0 always takes the most likely token; several are shown side by side.
        top_k: sample only from the k most likely tokens.
        top_p: sample from the fewest tokens whose probabilities reach p.
        min_p: sample from the tokens at least p times as likely as the most likely one.
        repetition_penalty: above 1: makes tokens that came before less likely.
        stop: end before any of these strings.
        num_samples: how many samples for each temperature.
        seed: of the sampling.
    """

    folder: RunFolder
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

    def __post_init__(self) -> None:
        expect_fields(
            self,
            (expect_int, "num_samples", {}),
            (expect_int, "max_new_tokens seed", {"minimum": 0}),
            (_expect_transform, " ".join(TRANSFORMS), {}),
            (_expect_stops, "stop", {}),
        )

    def run(self) -> int:
        """Print the prompt and its continuation, or a table of several."""
        transforms = [self._transform(value) for value in self.temperature]
        run = open_run(self.folder)
        prompt = run.tokenizer.default_prompt if self.prompt is None else self.prompt
        if not len(run.tokenizer.encode(prompt)):
            raise ValueError("a prompt must have at least one token: got ''; pass some text")
        if len(transforms) == self.num_samples == 1:
            self._stream(run, prompt, transforms[0])
        else:
            self._print_table(run, prompt, transforms)
        return 0

    def _transform(self, value: float) -> Transform | None:
        """Return how the logits change at a temperature; None: take the most likely character."""
        if value == 0.0 and self.repetition_penalty is None:  # the others keep the most likely one
            return None
        settings = {name: getattr(self, name) for name in TRANSFORMS} | {"temperature": value}
        return chain(
            *(TRANSFORMS[name](value) for name, value in settings.items() if value is not None)
        )

    def _stream(self, run: Run, prompt: str, transform: Transform | None) -> None:
        """Print the prompt, and each piece of text as soon as it is sampled."""
        tokens = generate(
            Decoder(run.model, run.params),
            run.tokenizer.encode(prompt),
            key=None if transform is None else (self.seed,),
            max_new_tokens=self.max_new_tokens,
            transform=transform,
        )
        sys.stdout.write(prompt)
        for piece in until_stop(run.tokenizer.stream(tokens), self.stop):
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
        sampled: list[list[int]] = [[] for _ in wanted]
        for tokens in generate_batch(
            model,
            [run.tokenizer.encode(prompt)] * len(wanted),
            keys=keys,
            max_new_tokens=self.max_new_tokens,
            transforms=transforms,
        ):
            for text, token in zip(sampled, tokens, strict=True):
                text.append(int(token))
            texts = map(run.tokenizer.decode, sampled)
            if self.stop and all(any(stop in text for stop in self.stop) for text in texts):
                break
        texts = map(run.tokenizer.decode, sampled)
        return ["".join(until_stop([text], self.stop)) for text in texts]


def _expect_transform(name: str, value: Any) -> None:
    """Require a value, or for the temperature at least one, that its transform takes."""
    values = value if isinstance(value, tuple) else (value,)
    if not values:
        raise ValueError(f"{name} must be at least one number: got none; pass 0.8")
    for number in values:
        TRANSFORMS[name](number)


def _expect_stops(name: str, stops: tuple[str, ...]) -> None:
    list(until_stop([], stops))
