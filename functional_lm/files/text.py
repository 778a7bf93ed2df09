"""Text from outside, in any encoding that Python knows."""

import codecs
from pathlib import Path

from .fault import FileFormatError, shown
from .reading import read_bytes

MAX_BYTES = 2**30

_NO_TEXT = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Codecs of names and of Python's source: slow, noisy, or with half surrogates for a result."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str | Path, *, encoding: str = "utf-8") -> str:
    """Return the text of a file, line ends as they are; a byte order mark is no part of it.

    Args:
        path: of the file; at most 1 GiB.
        encoding: any that Python knows.

    Raises:
        FileFormatError: naming the file: it is empty, too large, or not in that encoding, with the
            offset of the first bad byte.
        OSError: if it cannot be read.
        TypeError: if the encoding is no string.
        ValueError: for an unknown encoding.
    """
    codec = known_encoding(encoding)
    data = read_bytes(path, max_bytes=MAX_BYTES, remedy="pass a part of it")
    try:
        # With its own decoder for the mark, offsets would count from behind it.
        text = data.decode("utf-8" if codec == "utf-8-sig" else codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise FileFormatError(path, _fault(data, encoding, error.start)) from None
    if not text:
        raise FileFormatError(path, "is empty; a text file must hold text, pass another")
    return text


def known_encoding(name: str) -> str:
    """Return the name of a text encoding as Python spells it.

    Raises:
        TypeError: if it is no string.
        ValueError: if Python knows none of that name, or it is none of text files.
    """
    if not isinstance(name, str):
        raise TypeError(f"encoding must be a string: got {shown(name)}; try 'utf-8'")
    codec = name
    try:
        if name.isascii():
            codec = codecs.lookup(name).name
            "".encode(codec)  # refuses those between bytes and bytes
            if codec not in _NO_TEXT:
                return codec
    except (LookupError, ValueError):
        pass
    raise ValueError(
        f"encoding must be one of text that Python knows: got {shown(name)}; "
        "try utf-8, utf-16, latin-1 or cp1252"
    )


def _fault(data: bytes, encoding: str, offset: int) -> str:
    found = f"the byte 0x{data[offset]:02x} at offset {offset}"
    try_this = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    remedy = f"it looks like {try_this}: " if try_this else "convert it, or "
    other = try_this or "latin-1"
    return (
        f"must be {encoding.upper()}: it has {found}; {remedy}pass its --encoding, such as {other}"
    )
