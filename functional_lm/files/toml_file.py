"""TOML from outside, bounded in depth, in memory and in time."""

import tomllib
from pathlib import Path
from typing import Any

from .fault import FileFormatError
from .json_file import MAX_DEPTH, MAX_DIGITS
from .reading import read_bytes

MAX_BYTES = 32 * 2**10
MAX_DOTS = 200
"""In a line. The parser takes the square of a dotted key's length, minutes for one of 32 KiB."""


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return what a TOML file of settings holds.

    Raises:
        FileFormatError: naming the file and what is wrong: no TOML, not UTF-8, more than 32 KiB, a
            line of more than 200 dots, more than 64 tables within each other, or an integer of
            more than 300 digits.
        OSError: if it cannot be read.
    """
    data = read_bytes(path, max_bytes=MAX_BYTES)
    fault = None
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.count(b".") > MAX_DOTS:
            raise _error(path, f"line {number} has more than {MAX_DOTS} dots")
    try:
        content = tomllib.loads(data.decode().removeprefix("\ufeff"))
        fault = _fault(content)
    except UnicodeDecodeError as error:
        byte = data[error.start]
        fault = f"TOML must be UTF-8, but it has the byte 0x{byte:02x} at offset {error.start}"
    except RecursionError:
        fault = f"it has more than {MAX_DEPTH} tables and arrays within each other"
    except tomllib.TOMLDecodeError as error:
        fault = str(error)
    except ValueError:  # of the conversion of an integer
        fault = f"it has an integer of more than {MAX_DIGITS} digits"
    if fault is not None:
        raise _error(path, fault)
    return content


def _fault(content: dict[str, Any]) -> str | None:
    """Return what the parser lets pass and whoever uses the value could not stand."""
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, (dict, list)):
                inner += value.values() if isinstance(value, dict) else value
            elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
                return f"it has an integer of more than {MAX_DIGITS} digits"
        level = inner
    return f"it has more than {MAX_DEPTH} tables and arrays within each other" if level else None


def _error(path: str | Path, fault: str) -> FileFormatError:
    return FileFormatError(path, f"must be TOML: {fault}; correct it, or let its name end in .json")
