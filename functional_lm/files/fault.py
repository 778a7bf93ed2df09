"""The one exception for a file from outside that cannot be used."""

import reprlib
from pathlib import Path

LONGEST = 80
"""Characters of a value that an error shows."""


class FileFormatError(ValueError):
    """A file holds something else than it should.

    Attributes:
        path: of the file, or what else names the content.
        reason: what is wrong, and the remedy, so that path and reason make a sentence.

    >>> print(FileFormatError("a.json", "is empty; pass another"))
    a.json is empty; pass another
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        """Keep both."""
        super().__init__(path, reason)  # what pickle and copy make it from again
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.path} {self.reason}"


def damaged(path: str | Path, fault: str) -> FileFormatError:
    """Return the error of a file that a program wrote and that is not as it was written."""
    return FileFormatError(path, f"is damaged: {fault}; restore it from a copy")


def shown(value: object) -> str:
    """Return how an error shows what a file holds: the beginning, since it may be any length."""
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST else value[:LONGEST] + "...")
    said = reprlib.repr(value)
    return said if len(said) <= LONGEST else said[:LONGEST] + "..."
