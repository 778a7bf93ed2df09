"""JSON from outside: strict, and bounded in depth, in memory and in time."""

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .fault import FileFormatError, shown
from .reading import read_bytes

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
MAX_MEMORY = 2**30
MAX_DIGITS = 300  # any such integer is a finite float as well

VALUE_BYTES = 400
"""What a value takes at the most when it is read, besides its text: an entry of a nested object."""

TEXT_BYTES = {True: 4, False: 12}
"""What a byte of text takes at the most: as itself, decoded, and in a string that grows.

Less for plain ASCII, since one character from beyond, written as an escape too, widens all others.
"""

HALF_A_PAIR = "a string has half of a surrogate pair, which is no character"

_CHUNK = 2**20
_HALF = re.compile(
    r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL
)


def read_json(
    path: str | Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_memory: int = MAX_MEMORY,
) -> Any:
    """Return the value that a JSON file holds; see `parse_json`.

    Args:
        path: of the file.
        max_bytes: the most that it may hold; checked before anything is read.
        max_depth: as for `parse_json`.
        max_memory: as for `parse_json`.

    Raises:
        FileFormatError: naming the file and what is wrong.
        OSError: if it cannot be read.
    """
    data = read_bytes(path, max_bytes=max_bytes)
    return parse_json(data, path, max_depth=max_depth, max_memory=max_memory)


def parse_json(
    content: bytes | str,
    path: str | Path,
    *,
    max_depth: int = MAX_DEPTH,
    max_memory: int = MAX_MEMORY,
) -> Any:
    """Return the value of a JSON text.

    Refused are a name that an object has twice, NaN and the infinities, numbers beyond the range of
    a float, lone surrogates, and bytes that are not UTF-8. A byte order mark is skipped.

    Args:
        content: the text.
        path: what an error names.
        max_depth: of arrays and objects within each other.
        max_memory: bytes that the value may take, estimated from above.

    Raises:
        FileFormatError: naming the path and what is wrong.
    """
    try:
        if isinstance(content, str):
            content = content.encode()
        _expect_bounded(content, max_depth, max_memory)
        text = content.decode().removeprefix("\ufeff")
        _expect_whole_pairs(text)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        fault = f"JSON must be UTF-8, but it has the byte 0x{byte:02x} at offset {error.start}"
    except UnicodeEncodeError:
        fault = HALF_A_PAIR
    except json.JSONDecodeError as error:
        fault = f"it is not JSON: {error}"
    except _Fault as error:
        fault = str(error)
    else:
        return value
    raise FileFormatError(path, f"is damaged: {fault}; correct it, or restore it from a copy")


class _Fault(Exception):
    """What is wrong with a JSON text."""


def _expect_bounded(data: bytes, max_depth: int, max_memory: int) -> None:
    """Raise _Fault for a text that nests too deep, or whose value would take too much memory.

    The parser recurses, and a byte of text can become a hundred of memory: both are known before.
    """
    texts = TEXT_BYTES[data.isascii() and b"\\u" not in data] * len(data)
    opening = data.count(b"[") + data.count(b"{")
    values = opening + data.count(b",")
    depth = opening
    if depth > max_depth or texts + VALUE_BYTES * values > max_memory:
        depth, values = _measure(data)  # those within strings do not count
    if depth > max_depth:
        raise _Fault(f"it has more than {max_depth} arrays and objects within each other")
    if texts + VALUE_BYTES * values > max_memory:
        raise _Fault(f"its {values:,} values would take more than {max_memory:,} bytes of memory")


def _measure(data: bytes) -> tuple[int, int]:
    """Return the depth of a JSON text, and how many values it has, from above.

    Exact as far as the text is JSON. Chunk by chunk in NumPy, since a loop over the characters of
    the longest text would take half a minute, and a list of its strings gigabytes.
    """
    deepest = depth = values = 0
    within = False  # a string
    held = b""
    for start in range(0, len(data), _CHUNK):
        chunk = held + data[start : start + _CHUNK]
        # An odd backslash at the end goes with the next chunk, to the character that it escapes.
        held = b"\\" if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 else b""
        chunk = chunk[: len(chunk) - len(held)]
        chunk = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        if not chunk:
            continue
        codes = np.frombuffer(chunk, np.uint8)
        quoted = np.logical_xor.accumulate(codes == ord('"')) ^ within
        within = bool(quoted[-1])
        opening = ((codes == ord("[")) | (codes == ord("{"))) & ~quoted
        closing = ((codes == ord("]")) | (codes == ord("}"))) & ~quoted
        depths = np.cumsum(opening.astype(np.int8) - closing.astype(np.int8), dtype=np.int32)
        deepest = max(deepest, depth + int(depths.max()))
        depth += int(depths[-1])
        values += int(opening.sum()) + int(((codes == ord(",")) & ~quoted).sum())
    return deepest, values


def _expect_whole_pairs(text: str) -> None:
    """Raise _Fault for half of a surrogate pair; only an escape can bring one into a string."""
    if re.search(r"\\u[dD][89a-fA-F]", text) and _HALF.search(text.replace("\\\\", "  ")):
        raise _Fault(HALF_A_PAIR)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Fault(f"an object has the name {shown(name)} twice")
            seen.add(name)
    return made


def _integer(digits: str) -> int:
    length = len(digits.removeprefix("-"))
    if length > MAX_DIGITS:
        raise _Fault(f"it has a number of {length:,} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Fault(f"the number {shown(digits)} is beyond the range of a float")
    return value


def _constant(name: str) -> NoReturn:
    raise _Fault(f"{name} is no JSON number")
