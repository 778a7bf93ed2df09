"""What the commands print, with nothing in it that a terminal obeys."""

import builtins
from typing import Any

_ESCAPES = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:x}"
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F))
}
"""Control characters but tab and newline, and those that reverse the direction of writing."""


def escaped(text: str) -> str:
    """Return a text, such as a file's name, that a terminal shows as it is."""
    return text.translate(_ESCAPES)


def print(*values: object, **settings: Any) -> None:
    """Print as Python does, but `escaped`."""
    builtins.print(*(escaped(str(value)) for value in values), **settings)
