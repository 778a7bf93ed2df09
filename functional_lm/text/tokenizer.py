"""Tokenizers: text to tokens and back."""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..contract import Array, expect_text
from ..files import FileFormatError, read_json

PIECE = 2**18
"""Characters that are looked at together: long texts need little more memory than their tokens."""


class Tokenizer(Protocol):
    """A reversible map from text to tokens, learned from a text.

    Attributes:
        kind: its name in files, a key of `TOKENIZERS`.
        unit: what a token is, in a word.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""

    @property
    def default_prompt(self) -> str:
        """A text of at least one token, for where no prompt is given."""

    def encode(self, text: str) -> Array:
        """Return the tokens of a text, integers (T,); raise ValueError if it has none."""

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens."""

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens piece by piece, each as soon as it is certain."""

    def to_json(self) -> str:
        """Return a JSON object with ``"type"``, the kind, and what `from_data` needs."""

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Tokenizer":
        """Return the tokenizer of a parsed JSON object; raise ValueError if it is damaged."""


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """One token for each character: token i is the i-th of ``characters``, which are sorted.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.encode("hole").tolist()
    [1, 3, 2, 0]
    >>> tokenizer.decode([1, 3, 2, 0])
    'hole'
    """

    kind: ClassVar[str] = "char"
    unit: ClassVar[str] = "character"

    characters: str

    def __post_init__(self) -> None:
        """Require sorted, distinct characters, which a file can hold."""
        characters = self.characters
        # More than there are in Unicode cannot be distinct: a long text is refused unsorted.
        distinct = 0 < len(characters) <= sys.maxunicode + 1
        if not distinct or list(characters) != sorted(set(characters)):
            raise ValueError(
                "characters must be sorted, distinct and at least one: got "
                f"{characters[:40]!r}; use CharTokenizer.train(text)"
            )
        half = re.search("[\ud800-\udfff]", characters)
        if half:
            raise ValueError(
                f"characters must be Unicode's: got {half[0]!r}, half of a surrogate pair; decode "
                "the text with its encoding"
            )

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """Return a tokenizer for the characters of a text.

        Raises:
            ValueError: for an empty text.
        """
        if not text:
            raise ValueError("a tokenizer needs a text: got an empty one; pass some characters")
        seen = np.zeros(sys.maxunicode + 1, bool)
        for _, codes in _pieces(text):
            seen[np.flatnonzero(np.bincount(codes))] = True
        return cls("".join(map(chr, np.flatnonzero(seen).tolist())))

    @property
    def vocab_size(self) -> int:
        """The number of characters."""
        return len(self.characters)

    @property
    def default_prompt(self) -> str:
        """A new line, or the first character where there is none."""
        return "\n" if "\n" in self.characters else self.characters[0]

    def encode(self, text: str) -> Array:
        """Return the tokens of a text (T,), in the smallest type of unsigned integers.

        Raises:
            ValueError: naming the first unknown character and its position.
        """
        known, unknown = np.array(list(map(ord, self.characters))), self.vocab_size
        token_of = np.full(known[-1] + 2, unknown, np.min_scalar_type(unknown))
        token_of[known] = np.arange(unknown)
        tokens = np.empty(len(text), token_of.dtype)
        for start, codes in _pieces(text):
            piece = tokens[start : start + len(codes)]
            np.take(token_of, codes, out=piece, mode="clip")  # the last entry is for all above it
            if piece.max() == unknown:
                position = start + int(piece.argmax())
                raise ValueError(
                    f"the text must be made of the {self.vocab_size} known characters: got "
                    f"{text[position]!r} at position {position}; remove it"
                )
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; an unknown one decodes as ``?``."""
        known = np.array([*map(ord, self.characters), ord("?")], "<u4")
        ids = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens), np.int64)
        ids = np.where((ids < 0) | (ids > self.vocab_size), self.vocab_size, ids)
        return known[ids].tobytes().decode("utf-32-le")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the character of each token."""
        for token in map(int, tokens):
            yield self.characters[token] if 0 <= token < self.vocab_size else "?"

    def to_json(self) -> str:
        """Return the tokenizer as JSON."""
        return json.dumps({"type": self.kind, "characters": self.characters})

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "CharTokenizer":
        """Return the tokenizer of the object that `to_json` wrote.

        Raises:
            ValueError: if the object is not that.
        """
        if not isinstance(data.get("characters"), str):
            raise ValueError('it must have a string "characters"')
        return cls(data["characters"])


TOKENIZERS: dict[str, type[Tokenizer]] = {"char": CharTokenizer}
"""Tokenizers by the kind that their files name."""


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer from the JSON file that holds its `to_json`.

    Raises:
        FileFormatError: naming the file, if it holds no tokenizer.
        OSError: if it cannot be read.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.get("type") not in list(TOKENIZERS):
        fault = f'its "type" must be {" or ".join(map(repr, TOKENIZERS))}'
    else:
        try:
            return TOKENIZERS[data["type"]].from_data(data)
        except ValueError as error:
            fault = str(error)
    raise FileFormatError(path, f"is not a tokenizer: {fault}; restore it from a copy")


def _pieces(text: str) -> Iterator[tuple[int, Array]]:
    """Yield the code points of a text, a piece at a time, each piece behind its position."""
    expect_text(text)
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        if piece.isascii():
            yield start, np.frombuffer(piece.encode("ascii"), np.uint8)
        else:
            yield start, np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
