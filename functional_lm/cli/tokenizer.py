"""``functional-lm tokenizer``."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from ..contract import expect_fields, expect_int
from ..files import write_atomic
from ..text import Corpus, SubwordTokenizer, load_corpus, make_tokenizer, read_corpus
from ..text import Tokenizer as AnyTokenizer
from ..text.subword import END_OF_TEXT
from ..text.tokenizer import SPECS, expect_spec
from .flags import Argument, warn_of_losses
from .output import escaped, print

MEASURED = 2**22
"""Characters of a text on which tokenizers are compared."""

SAMPLE = 60
"""Characters that the sample line has at least, where the text has such a line."""

STYLES = ("black on #a6cee3", "black on #fdbf6f", "black on #b2df8a", "black on #cab2d6")
"""Of neighbouring pieces."""

VOCAB_SIZE = 8192

OF_TRAINING = {"kind": None, "vocab_size": None, "out": None, "special_tokens": (END_OF_TEXT,)}
OF_COMPARING = {"text_file": None, "sample": None, "json": False}
"""What only one of the two takes, and its defaults."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Train a subword tokenizer on texts, or compare tokenizers on a text.

    ``train`` takes text files, and Tiny Shakespeare without any. ``compare`` takes what train
    --tokenizer takes: char, byte, bpe:N and the like, trained on the text, and tokenizer.json
    files. It shows the pieces of a line, and how fast each encodes.

    Attributes:
        action: train or compare.
        files: texts to train on, or tokenizers to compare.
        kind: the kind of the new tokenizer. Not given: bpe.
        vocab_size: the size of its vocabulary. Not given: 8192.
        special_tokens: tokens that are never split, by their text.
        out: the file to write, which must not exist. Not given: tokenizer.json.
        text_file: the text to compare on. Not given: Tiny Shakespeare.
        encoding: the encoding of the texts.
        sample: the line whose pieces are shown. Not given: one of the text.
        json: print one JSON object for each tokenizer.
    """

    action: Annotated[Literal["train", "compare"], Argument("train|compare")]
    files: Annotated[tuple[str, ...], Argument("FILE...")] = ()
    kind: Literal["bpe", "wordpiece", "unigram"] | None = None
    vocab_size: int | None = None
    special_tokens: tuple[str, ...] = (END_OF_TEXT,)
    out: Path | None = None
    text_file: Path | None = None
    encoding: str = "utf-8"
    sample: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        expect_fields(self, (expect_int, "vocab_size", {}))
        foreign = OF_TRAINING if self.action == "compare" else OF_COMPARING
        given = [name for name, default in foreign.items() if getattr(self, name) != default]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ValueError(f"{flag} makes no difference to tokenizer {self.action}; remove it")
        if self.action == "compare" and not self.files:
            raise ValueError(f"compare needs at least one tokenizer: got none; pass {SPECS}")
        for spec in self.files if self.action == "compare" else ():
            expect_spec(spec)

    def run(self) -> int:
        """Write the tokenizer, or print the table."""
        return self._train() if self.action == "train" else self._compare()

    def _train(self) -> int:
        kind, size = self.kind or "bpe", self.vocab_size or VOCAB_SIZE
        out = self.out or Path("tokenizer.json")
        if out.exists():
            raise FileExistsError(f"out must be a new file: {out} exists; pass another")
        if not out.parent.is_dir():
            raise FileNotFoundError(f"the folder of out must exist: {out.parent}; create it")
        start = time.perf_counter()
        made = SubwordTokenizer.train(
            self._texts(), kind=kind, vocab_size=size, special_tokens=self.special_tokens
        )
        write_atomic(out, made.to_json())
        if made.vocab_size < size:
            print(f"note: the text has no more than {made.vocab_size:,} tokens", file=sys.stderr)
        warn_of_losses(made)
        print(f"{kind} of {made.vocab_size:,} tokens", end=" ")
        print(f"in {time.perf_counter() - start:.1f} s, written to {out}")
        print(f"next  functional-lm train --tokenizer {out}")
        return 0

    def _texts(self) -> Iterator[str]:
        if not self.files:
            yield load_corpus().text
        for file in self.files:
            yield read_corpus(file, encoding=self.encoding).text

    def _compare(self) -> int:
        if self.text_file is None:
            corpus = load_corpus()
        else:
            corpus = read_corpus(self.text_file, encoding=self.encoding)
        corpus = Corpus(corpus.text[:MEASURED], corpus.source)
        lines = corpus.text.splitlines()
        line = next((one for one in lines if len(one) >= SAMPLE), max(lines, key=len, default=""))
        line = line[: 2 * SAMPLE] if self.sample is None else self.sample
        tokenizers = {spec: make_tokenizer(spec, corpus) for spec in self.files}
        rows = [_measured(spec, one, corpus.text) for spec, one in tokenizers.items()]
        if self.json:
            print(json.dumps(rows, indent=2))
            return 0
        print(f"text  {corpus.source}: {len(corpus.text):,} characters\n")
        for spec, one in tokenizers.items():
            warn_of_losses(one, spec)
        _show(rows, {spec: _pieces(one, line) for spec, one in tokenizers.items()})
        return 0


def _measured(spec: str, tokenizer: AnyTokenizer, text: str) -> dict[str, Any]:
    """Return the figures of a tokenizer."""
    start = time.perf_counter()
    tokens = tokenizer.encode(text)
    seconds = time.perf_counter() - start
    n_bytes = len(text.encode())
    return {
        "tokenizer": spec,
        "vocabulary": tokenizer.vocab_size,
        "tokens_per_character": len(tokens) / len(text),
        "tokens_per_word": len(tokens) / max(1, len(text.split())),
        "bytes_per_token": n_bytes / max(1, len(tokens)),
        "seconds": seconds,
        "megabytes_per_second": n_bytes / 1e6 / seconds,
        "exact": tokenizer.decode(tokens) == text,
    }


def _pieces(tokenizer: AnyTokenizer, line: str) -> list[str]:
    """Return what each token of a line stands for; a part of a character as ``\\xNN``."""
    _, sizes = tokenizer.sized(line)
    ends = np.cumsum(sizes).tolist()
    data = line.encode()
    parts = [data[end - size : end] for size, end in zip(sizes.tolist(), ends, strict=True)]
    return [escaped(part.decode(errors="backslashreplace")) for part in parts]


def _show(rows: list[dict[str, Any]], pieces: dict[str, list[str]]) -> None:
    """Print a table of the figures, and the pieces of a line, coloured on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("tokenizer")
    titles = ("vocabulary", "tokens/char", "tokens/word", "bytes/token", "MB/s", "gives back text")
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            Text(escaped(row["tokenizer"])),
            f"{row['vocabulary']:,}",
            f"{row['tokens_per_character']:.3f}",
            f"{row['tokens_per_word']:.2f}",
            f"{row['bytes_per_token']:.2f}",
            f"{row['megabytes_per_second']:.1f}",
            "yes" if row["exact"] else "no",
        )
    console.print(table)
    for spec, parts in pieces.items():
        text = Text(f"\n{escaped(spec)}, {len(parts)} tokens\n")
        for i, part in enumerate(parts):
            if i and not console.is_terminal:
                text.append("|")
            text.append(part, style=STYLES[i % len(STYLES)])
        console.print(text, soft_wrap=True)
