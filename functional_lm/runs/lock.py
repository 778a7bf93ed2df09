"""One process at a time for the folder of a run.

The lock is the operating system's, on an open file: it is gone with the process that holds it,
however that ends, so there is nothing to clean up after a kill.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"


class RunLockedError(OSError):
    """Another process holds the folder."""


@contextlib.contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder.

    Raises:
        RunLockedError: at once, naming the process that holds it.
        OSError: if there can be no lock file in it.
    """
    path = Path(folder) / LOCK_FILE
    with path.open("a+") as file:
        if not _try_lock(file.fileno()):
            raise RunLockedError(
                f"a run can have one process at a time: {folder} is held by {_holder(path)}; "
                "wait for it or stop it"
            )
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not yet written who it is


def _try_lock(handle: int) -> bool:
    """Lock an open file until it is closed; tell whether that worked."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_on_windows(handle: int) -> bool:
    import msvcrt

    try:
        os.lseek(handle, 2**20, os.SEEK_SET)  # behind the content, which others may read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True
