"""A tokenizer with one token for each character."""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import Array
from ..files import FileFormatError, parse_json, read_json, write_atomic


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """Characters and their ids: id i is the i-th of ``characters``, which are sorted.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.encode("hole").tolist()
    [1, 3, 2, 0]
    >>> tokenizer.decode([1, 3, 2, 0])
    'hole'
    """

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
        return cls("".join(sorted(set(text))))

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.characters)

    def encode(self, text: str, *, replacement: str | None = None) -> Array:
        """Return the ids of a text, int32 (T,).

        Args:
            text: any string.
            replacement: a known character to put in the place of unknown ones.

        Raises:
            ValueError: naming the first unknown character and its position.
        """
        codes = _codes(text)
        known = _codes(self.characters)
        ids = np.minimum(np.searchsorted(known, codes), len(known) - 1).astype(np.int32)
        unknown = np.flatnonzero(known[ids] != codes)
        if len(unknown) and replacement is not None:
            ids[unknown] = self.encode(replacement)
        elif len(unknown):
            position = int(unknown[0])
            raise ValueError(
                f"the text must be made of the {self.vocab_size} known characters: got "
                f"{text[position]!r} at position {position}; remove it or pass a replacement"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; an unknown id decodes as ``?``."""
        size = self.vocab_size
        return "".join(self.characters[i] if 0 <= i < size else "?" for i in map(int, ids))

    def to_json(self) -> str:
        """Return the tokenizer as JSON."""
        return json.dumps({"type": "char", "characters": self.characters})

    @classmethod
    def from_json(cls, text: str, *, path: str | Path = "the JSON text") -> "CharTokenizer":
        """Return the tokenizer that `to_json` wrote.

        Args:
            text: what it wrote.
            path: what an error names.

        Raises:
            FileFormatError: if the text is not that.
        """
        return cls._from_data(parse_json(text, path), path)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file."""
        write_atomic(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Read a tokenizer from a JSON file.

        Raises:
            FileFormatError: naming the file, if it is no tokenizer.
            OSError: if it cannot be read.
        """
        return cls._from_data(read_json(path), path)

    @classmethod
    def _from_data(cls, data: Any, path: str | Path) -> "CharTokenizer":
        if not isinstance(data, dict) or data.get("type") != "char":
            fault = 'it must have "type": "char"'
        elif not isinstance(data.get("characters"), str):
            fault = 'it must have a string "characters"'
        else:
            try:
                return cls(data["characters"])
            except ValueError as error:
                fault = str(error)
        raise FileFormatError(path, f"is not a tokenizer: {fault}; restore it from a copy")


def _codes(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
