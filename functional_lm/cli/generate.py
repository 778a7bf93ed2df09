"""``functional-lm generate``."""

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..contract import Array, Key, expect_fields, expect_int
from ..files import FileFormatError, read_bytes
from ..generation import (
    SPECULATE,
    Decoder,
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
from ..text import continuation
from .output import escaped, print
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
        folder: the folder of a run, or latest.
        prompt: the text to continue. Not given: a new line.
        prompt_file: a file with the text to continue; - reads standard input.
        interactive: ask for one prompt after another; an empty one continues the last text.
        max_new_tokens: how many tokens to sample.
        temperature: 0 always takes the most likely token; several are shown side by side.
        top_k: sample only from the k most likely tokens.
        top_p: sample from the fewest tokens whose probabilities reach p.
        min_p: sample from the tokens at least p times as likely as the most likely one.
        repetition_penalty: above 1: makes tokens that came before less likely.
        stop: stop before any of these texts.
        num_samples: how many samples to draw at each temperature.
        speculate: draft up to so many of the next tokens where the text repeats itself, and let one
            pass of the model check them; quicker, for the same text. Only one sample is drafted. 0:
            none. Not given: 15.
        seed: the seed of the sampling.
        trust_model: run the code that comes with the run, whoever wrote it.
    """

    folder: RunFolder
    prompt: str | None = None
    prompt_file: Path | None = None
    interactive: bool = False
    max_new_tokens: int = 300
    temperature: tuple[float, ...] = (0.8,)
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    num_samples: int = 1
    speculate: int | None = None
    seed: int = 0
    trust_model: bool = False

    def __post_init__(self) -> None:
        expect_fields(
            self,
            (expect_int, "num_samples", {}),
            (expect_int, "max_new_tokens speculate", {"minimum": 0}),
            (expect_int, "seed", {"minimum": 0, "maximum": 2**64 - 1}),
            (_expect_transform, " ".join(TRANSFORMS), {}),
            (_expect_stops, "stop", {}),
        )
        prompts = (self.prompt, self.prompt_file, self.interactive or None)
        names = ("--prompt", "--prompt-file", "--interactive")
        given = [name for name, value in zip(names, prompts, strict=True) if value is not None]
        if len(given) > 1:
            raise ValueError(f"a text has one prompt: got {' and '.join(given)}; leave one out")
        if self.interactive and self._several:
            raise ValueError(
                "--interactive takes one temperature and one sample: got "
                f"{len(self.temperature)} and {self.num_samples}; leave the others out"
            )

    @property
    def _several(self) -> bool:
        return len(self.temperature) * self.num_samples > 1

    def run(self) -> int:
        """Print the prompt and its continuation, or a table of several."""
        run = open_run(self.folder, trust_model=self.trust_model)
        if self.interactive:
            return self._ask(run)
        prompt = run.tokenizer.default_prompt if self.prompt is None else self.prompt
        if self.prompt_file is not None:
            prompt = _read_prompt(self.prompt_file)
        if self._several:
            self._print_table(run, prompt)
        else:
            self._stream(run, prompt, (self.seed,))
        return 0

    def _ask(self, run: Run) -> int:
        """Continue one prompt after another, until there are no more."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  the arrow keys recall earlier prompts
        prompt, mark = run.tokenizer.default_prompt, ""
        if sys.stdin.isatty():
            mark = "> "
            print("Enter a prompt, or nothing to try the last one again.", file=sys.stderr)
            print("Ctrl-C stops a text, Ctrl-D leaves.", file=sys.stderr)
        for i in itertools.count():
            try:
                prompt = input(mark) or prompt
            except EOFError:
                print(end="\n" if mark else "")
                break
            try:
                self._stream(run, prompt, (self.seed, i))
            except ValueError as error:
                print(error, file=sys.stderr)
            except KeyboardInterrupt:
                print()
        return 0

    def _transform(self, value: float) -> Transform | None:
        """Return how the logits change at a temperature; None: take the most likely token."""
        if value == 0.0 and self.repetition_penalty is None:  # the others keep the most likely one
            return None
        settings = {name: getattr(self, name) for name in TRANSFORMS} | {"temperature": value}
        return chain(
            *(TRANSFORMS[name](value) for name, value in settings.items() if value is not None)
        )

    def _stream(self, run: Run, prompt: str, key: Key) -> None:
        """Print the prompt, and each piece of text as soon as it is sampled."""
        transform = self._transform(self.temperature[0])
        encoded = _encoded(run, prompt)
        decoder = Decoder(run.model, run.params)
        if self.speculate and not decoder.looks_ahead:
            print("No drafts: the model takes one token at a time.", file=sys.stderr)
        tokens = generate(
            decoder,
            encoded,
            key=None if transform is None else key,
            max_new_tokens=self.max_new_tokens,
            transform=transform,
            speculate=SPECULATE if self.speculate is None else self.speculate,
        )
        start, taken = time.perf_counter(), list[int]()

        def counted() -> Iterator[int]:
            for token in tokens:
                taken.append(token)
                yield token

        terminal = sys.stdout.isatty()
        if terminal:
            from rich.console import Console
            from rich.text import Text

            Console().print(Text(escaped(prompt), style="bold"), end="", soft_wrap=True)
        else:
            sys.stdout.write(prompt)
        for piece in until_stop(continuation(run.tokenizer, encoded, counted()), self.stop):
            sys.stdout.write(escaped(piece) if terminal else piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        _print_speed(len(taken), start, decoder)

    def _print_table(self, run: Run, prompt: str) -> None:
        """Print a column for each temperature and a row for each sample."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        start, transforms = time.perf_counter(), list(map(self._transform, self.temperature))
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
            table.add_row(*(Text(escaped(prompt + cell)) for cell in row))
        Console(file=sys.stdout).print(table)
        _print_speed(sum(map(len, map(run.tokenizer.encode, cells))), start, model)

    def _sample(
        self, run: Run, model: Decoder, prompt: str, wanted: list[tuple[Key, Transform | None]]
    ) -> list[str]:
        """Return a continuation for each key and transform, all sampled at once."""
        transforms = [transform for _, transform in wanted]
        keys = [None if transform is None else seed for seed, transform in wanted]
        sampled: list[list[int]] = [[] for _ in wanted]
        encoded = _encoded(run, prompt)

        def texts() -> list[str]:
            return ["".join(continuation(run.tokenizer, encoded, one)) for one in sampled]

        for tokens in generate_batch(
            model,
            [encoded] * len(wanted),
            keys=keys,
            max_new_tokens=self.max_new_tokens,
            transforms=transforms,
        ):
            for text, token in zip(sampled, tokens, strict=True):
                text.append(int(token))
            if self.stop and all(any(stop in text for stop in self.stop) for text in texts()):
                break
        return ["".join(until_stop([text], self.stop)) for text in texts()]


def _read_prompt(path: Path) -> str:
    """Return the text of a file, or of standard input for -, without its last line break."""
    data = sys.stdin.buffer.read() if path == Path("-") else read_bytes(path)
    try:
        return data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            "standard input" if path == Path("-") else path,
            f"must be UTF-8: it has the byte 0x{data[error.start]:02x} at offset {error.start}; "
            "convert it",
        ) from None


def _encoded(run: Run, prompt: str) -> Array:
    tokens = run.tokenizer.encode(prompt)
    if not len(tokens):
        raise ValueError("a prompt must have at least one token: got ''; pass some text")
    return tokens


def _print_speed(tokens: int, start: float, decoder: Decoder) -> None:
    seconds = time.perf_counter() - start
    said = f"{tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s"
    if decoder.drafted:
        share = decoder.accepted / decoder.drafted
        said += f", {share:.0%} of {decoder.drafted:,} drafted tokens accepted"
    print(said, file=sys.stderr)


def _expect_transform(name: str, value: Any) -> None:
    """Require a value, or for the temperature at least one, that its transform takes."""
    values = value if isinstance(value, tuple) else (value,)
    if not values:
        raise ValueError(f"{name} must be at least one number: got none; pass 0.8")
    for number in values:
        TRANSFORMS[name](number)


def _expect_stops(name: str, stops: tuple[str, ...]) -> None:
    list(until_stop([], stops))
