"""The bytes of a file from outside, no more of them than expected."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .fault import FileFormatError


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading; the value is the file and its size in bytes.

    A pipe or a device is refused: it could keep its reader waiting for ever, or never end.

    Raises:
        FileFormatError: if it is neither a file nor a folder.
        OSError: if it cannot be opened.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder says what it is
        raise FileFormatError(path, "is a pipe or a device; write its content to a file first")
    with open(path, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


def expect_size(path: str | Path, size: int, max_bytes: int, remedy: str) -> None:
    """Raise FileFormatError for a file of more than so many bytes."""
    if size > max_bytes:
        raise FileFormatError(
            path, f"must be of at most {max_bytes:,} bytes: it has {size:,}; {remedy}"
        )


def read_bytes(path: str | Path, *, max_bytes: int, remedy: str = "is it another file?") -> bytes:
    """Return the content of a file.

    Args:
        path: of the file.
        max_bytes: the most that it may hold; checked before anything is read.
        remedy: what to do about a larger one.

    Raises:
        FileFormatError: for a file larger than that, or no regular file.
        OSError: if it cannot be read.
    """
    with opened(path) as (file, size):
        expect_size(path, size, max_bytes, remedy)
        data = file.read(size + 1)
    if len(data) > size:
        raise FileFormatError(path, "grew while it was read; try again when it is finished")
    return data
