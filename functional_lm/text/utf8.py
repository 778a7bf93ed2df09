"""Text as UTF-8, and back as soon as a character is complete."""

import codecs
from collections.abc import Iterable, Iterator

import numpy as np

from ..contract import Array, expect_text

__all__ = ["streamed", "utf8", "widths"]


def utf8(text: str) -> bytes:
    """Return the UTF-8 bytes of a text.

    Raises:
        ValueError: naming the position of half of a surrogate pair, which UTF-8 does not have.
    """
    expect_text(text)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a text must be made of Unicode characters: got {text[error.start]!r}, half of a "
            f"surrogate pair, at position {error.start}; decode the text with its encoding"
        ) from None


def widths(text: str) -> Array:
    """Return how many bytes of UTF-8 each character takes, (N,)."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)


def streamed(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of pieces of UTF-8, never a part of a character; wrong bytes become U+FFFD.

    >>> list(streamed([b"a", b"\\xc3", b"\\xa9b", b"\\xff"]))
    ['a', 'éb', '\N{REPLACEMENT CHARACTER}']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", True):
        yield rest
