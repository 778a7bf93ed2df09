"""Tokenizers: text to tokens and back."""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..contract import Array, expect_text
from ..files import FileFormatError, parse_json, read_bytes
from .subword import KINDS, SubwordTokenizer
from .utf8 import streamed, utf8

PIECE = 2**18
"""Characters that are looked at together: long texts need little more memory than their tokens."""


MAX_FILE = 2**26
"""Bytes of a file: those of vocabularies of 256,000 tokens have 33 MB."""


class Tokenizer(Protocol):
    """A map from text to tokens and back.

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

    @property
    def end_of_text(self) -> int | None:
        """The token that ends a document, if there is one."""

    @property
    def token_bytes(self) -> Array | None:
        """How many bytes of UTF-8 each token stands for (V,); None if that depends on the text.

        The end of a text stands for none: a corpus puts it between documents.
        """

    @property
    def losses(self) -> tuple[str, ...]:
        """What decoding does not give back, in words; empty where it gives back every text."""

    def sized(self, text: str) -> tuple[Array, Array]:
        """Return the tokens of a text, and the bytes of the text that each stands for, both (T,).

        The sum of the bytes is the length of the text in UTF-8.
        """

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

    @property
    def end_of_text(self) -> None:
        """None: every token is a character."""
        return None

    @property
    def losses(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    @functools.cached_property
    def token_bytes(self) -> Array:
        """The length of each character in UTF-8 (V,)."""
        return np.array([len(character.encode()) for character in self.characters], np.uint8)

    def sized(self, text: str) -> tuple[Array, Array]:
        """Return the tokens of a text, and the bytes of each, both (T,)."""
        tokens = self.encode(text)
        return tokens, self.token_bytes[tokens]

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


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """One token for each byte of UTF-8. It needs no training and takes every text.

    UTF-8 never has the byte 0xFF, so that one ends a document.

    >>> ByteTokenizer().encode("né").tolist()
    [110, 195, 169]
    """

    kind: ClassVar[str] = "byte"
    unit: ClassVar[str] = "byte"
    vocab_size: ClassVar[int] = 256
    default_prompt: ClassVar[str] = "\n"
    end_of_text: ClassVar[int] = 0xFF
    losses: ClassVar[tuple[str, ...]] = ()

    @property
    def token_bytes(self) -> Array:
        """One for each token but the end of a text (V,)."""
        return (np.arange(self.vocab_size) != self.end_of_text).astype(np.uint8)

    def encode(self, text: str) -> Array:
        """Return the bytes of a text (T,).

        Raises:
            ValueError: naming the position of half of a surrogate pair.
        """
        return np.frombuffer(utf8(text), np.uint8)

    def sized(self, text: str) -> tuple[Array, Array]:
        """Return the bytes of a text, and a one for each, both (T,)."""
        tokens = self.encode(text)
        return tokens, np.ones_like(tokens)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; what is not UTF-8 decodes as U+FFFD."""
        return b"".join(map(self._byte, tokens)).decode(errors="replace")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens, a character at a time."""
        return streamed(map(self._byte, tokens))

    @staticmethod
    def _byte(token: int) -> bytes:
        return bytes([token if 0 <= token < 256 else 0xFF])

    def to_json(self) -> str:
        """Return the tokenizer as JSON."""
        return json.dumps({"type": self.kind})

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "ByteTokenizer":
        """Return the tokenizer: there is nothing to read."""
        return cls()


TOKENIZERS: dict[str, type[Tokenizer]] = {
    kind.kind: kind for kind in (CharTokenizer, ByteTokenizer, SubwordTokenizer)
}
"""Tokenizers by their kind, which their files name; those of subwords need not."""

SPECS = f"char, byte, {', '.join(f'{kind}:N' for kind in KINDS)} or a tokenizer.json"


def expect_spec(spec: str) -> tuple[str, int | None]:
    """Return the kind and the size that `make_tokenizer` is asked for, ``file`` for a file.

    Raises:
        ValueError: for ``bpe`` and the like without a size.
    """
    kind, _, size = spec.partition(":")
    if spec in ("char", "byte"):
        return spec, None
    if kind in KINDS:
        if size.isascii() and size.isdecimal():
            return kind, int(size)
        raise ValueError(f"{kind} needs a vocabulary's size: got {spec!r}; pass {kind}:1024")
    return "file", None


class Trainable(Protocol):
    """A corpus, as far as a tokenizer needs one."""

    def characters(self) -> CharTokenizer:
        """Return the tokenizer of all its characters."""

    def training_texts(self) -> Iterable[str]:
        """Return its texts without those that are held out."""


def make_tokenizer(spec: str, corpus: Trainable) -> Tokenizer:
    """Return a tokenizer as it is named on the command line.

    Args:
        spec: ``char``, ``byte``, ``bpe:N``, ``wordpiece:N`` or ``unigram:N`` for a vocabulary of N
            tokens, or the path of a tokenizer.json.
        corpus: to train it on. Held-out text counts only for its characters.

    Raises:
        FileFormatError: if the file holds no tokenizer.
        ImportError: if it needs `tokenizers`, which is missing.
        OSError: if the file cannot be read.
        ValueError: for another spec, or a size that is too small.
    """
    kind, size = expect_spec(spec)
    if kind == "char":
        return corpus.characters()
    if kind == "byte":
        return ByteTokenizer()
    if size is not None:
        return SubwordTokenizer.train(corpus.training_texts(), kind=kind, vocab_size=size)
    if not Path(spec).is_file():
        raise FileNotFoundError(f"a tokenizer must be {SPECS}: there is no file {spec}")
    return load_tokenizer(spec)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer from the JSON file that holds its `to_json`, or from any tokenizer.json.

    Raises:
        FileFormatError: naming the file, if it holds no tokenizer.
        ImportError: if it needs `tokenizers`, which is missing.
        OSError: if it cannot be read.
    """
    data = parse_json(read_bytes(path, max_bytes=MAX_FILE), path)
    try:
        return tokenizer_of(data)
    except ValueError as error:
        raise FileFormatError(
            path, f"is not a tokenizer: {error}; restore it from a copy"
        ) from None


def tokenizer_of(data: Any) -> Tokenizer:
    """Return the tokenizer of a parsed JSON value.

    Raises:
        ImportError: if it needs `tokenizers`, which is missing.
        ValueError: if there is none in it.
    """
    kind = data.get("type", "subword" if "model" in data else "") if isinstance(data, dict) else ""
    if kind not in list(TOKENIZERS):
        raise ValueError(f'its "type" must be {" or ".join(map(repr, TOKENIZERS))}')
    return TOKENIZERS[kind].from_data(data)


def continuation(tokenizer: Tokenizer, prompt: Array, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of tokens behind those of a prompt, piece by piece.

    It may differ from their text alone: a space between two words belongs to neither.
    """
    hidden = len(tokenizer.decode(prompt))
    for piece in tokenizer.stream(itertools.chain(map(int, prompt), tokens)):
        if len(piece) > hidden:
            yield piece[hidden:]
        hidden = max(0, hidden - len(piece))


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of what a tokenizer's file holds, in hexadecimal digits."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()


def _pieces(text: str) -> Iterator[tuple[int, Array]]:
    """Yield the code points of a text, a piece at a time, each piece behind its position."""
    expect_text(text)
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        if piece.isascii():
            yield start, np.frombuffer(piece.encode("ascii"), np.uint8)
        else:
            yield start, np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
