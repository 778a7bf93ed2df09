"""One process at a time for the folder of a run, and for the name of a new one.

The lock is the operating system's, on an open file: it ends with the process that holds it, however
that ends, so nothing has to be cleaned up after a kill.
"""

import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ..files import FileFormatError, read_json

LOCK_FILE = ".lock"


class RunLockedError(OSError):
    """Another process holds the folder."""


@contextlib.contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Hold the folder of a run; raises as `hold` does."""
    with hold(Path(folder) / LOCK_FILE, folder):
        yield


@contextlib.contextmanager
def hold(path: Path, folder: str | Path, *, timeout: float = 0.2) -> Iterator[None]:
    """Hold a lock file, which says which process holds it.

    Args:
        path: of the lock file; made if need be.
        folder: what an error names.
        timeout: seconds to wait for a process that only looks whether the folder is free.

    Raises:
        RunLockedError: naming the process that holds it.
        FileFormatError: if it is a link, which might lead to any other file.
        OSError: if there can be no lock file.
    """
    import filelock

    if os.path.lexists(path):  # the lock would empty whatever else it leads to
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise FileFormatError(path, "must be a regular file, but is a link or none; remove it")
    lock = filelock.FileLock(path, timeout=timeout, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunLockedError(
            f"a run can have one process at a time: {folder} is held by {_holder(path)}; "
            "wait for it or stop it"
        ) from None
    try:
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with contextlib.suppress(OSError):  # it only serves the message
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0))
            try:
                os.write(descriptor, holder.encode())
            finally:
                os.close(descriptor)
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        holder = read_json(path)
        return f"process {int(holder['pid'])} on {ascii(str(holder['host'])[:80])[1:-1]}"
    except (OSError, FileFormatError, ValueError, KeyError, TypeError):
        return "another process"  # which has not yet written who it is
