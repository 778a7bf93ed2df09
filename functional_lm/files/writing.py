"""Files that appear whole or not at all, and that a power cut does not take back."""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

BytesLike: TypeAlias = bytes | bytearray | memoryview

PIECE = 2**20
"""The most bytes that one call of os.write is given."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_STALE = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)
_NO_FOLDER_SYNC = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EBADF, errno.ENOTSUP}
"""What a system says that cannot open or sync a folder; on all others it is an error."""


def write_atomic(path: str | os.PathLike[str], data: BytesLike | str | Iterable[BytesLike]) -> None:
    """Write a file under a temporary name in the same folder, sync it, then rename it.

    A reader sees the old content or the new, never a part; so does whoever looks after a crash or
    a power cut at any moment.

    Args:
        path: of the file; its folder must exist.
        data: the content, or its pieces in order. Text is written as UTF-8. A piece may be any
            C-contiguous buffer, such as a NumPy array.

    Raises:
        OSError: naming the file, if it cannot be written; then nothing is left behind, and an older
            file stays. Only where the last step fails, to sync the folder after the rename, is the
            new file there, whole.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name[:40]}.{os.urandom(8).hex()}.tmp"
    try:
        with _synced_after(path.parent):
            try:
                _write(temporary, _pieces(data))
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:  # os.write names no file, and nobody knows the temporary one
        if error.errno and str(error.filename) in ("None", str(temporary)):
            error.filename = str(path)
            del error.filename2
        raise


def remove_stale(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files that a killed process left in a folder, and return them.

    Only a name that `write_atomic` makes counts. Call it only while you hold the lock of the run
    whose folder it is: another process's file under way looks the same.

    Raises:
        OSError: if the folder cannot be listed, or a file not removed.
    """
    found = [path for path in sorted(Path(folder).iterdir()) if _STALE.fullmatch(path.name)]
    stale = [path for path in found if path.is_file() and not path.is_symlink()]
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def _pieces(data: BytesLike | str | Iterable[BytesLike]) -> Iterator[memoryview]:
    """Yield the content in pieces of at most `PIECE` bytes."""
    if isinstance(data, str):
        data = data.encode()
    for part in [data] if isinstance(data, (bytes, bytearray, memoryview)) else data:
        view = memoryview(part)
        if view.nbytes:  # an empty one of several dimensions cannot be cast
            view = view.cast("B")
            for start in range(0, len(view), PIECE):
                yield view[start : start + PIECE]


def _write(path: Path, pieces: Iterator[memoryview]) -> None:
    """Make a file of the pieces, which is on the disk when this returns."""
    descriptor = os.open(path, _FLAGS, 0o644)
    try:
        for piece in pieces:
            while piece:
                written = os.write(descriptor, piece)
                if not written:
                    raise OSError(errno.EIO, "the system writes nothing and says no reason")
                piece = piece[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _synced_after(folder: Path) -> Iterator[None]:
    """Sync a folder at the end, so that a rename in it lasts, where the system can.

    The folder is opened first: whatever speaks against that is said before anything changes.
    """
    descriptor = None
    if os.name != "nt":
        with _ignored(_NO_FOLDER_SYNC):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield
        if descriptor is not None:
            with _ignored(_NO_FOLDER_SYNC):
                os.fsync(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def _ignored(numbers: set[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
