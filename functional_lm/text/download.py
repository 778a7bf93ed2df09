"""A file from the network, checked before it is used or kept."""

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ..files import write_atomic

SILENCE = 20.0
"""Seconds that a server may send nothing."""
BLOCK = 2**16
DEADLINE = 300.0
"""Seconds that a whole download may take."""


class DownloadError(OSError):
    """A file cannot be downloaded; the message says why."""


def fetch(
    url: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    progress: Callable[[float], object] = lambda share: None,
) -> bytes:
    """Return the bytes at a URL, checked, and keep them at a path if that can be written.

    Args:
        url: where the file is.
        path: where to keep it; its folder is made if need be.
        size: its length in bytes; no more than that is read.
        sha256: the hash of its content, in hexadecimal digits.
        progress: called with the share that has arrived, in another thread.

    Raises:
        DownloadError: if the server cannot be reached, or sends anything else.
    """
    received: list[bytes | Exception] = []

    def receive() -> None:
        try:
            with urllib.request.urlopen(url, timeout=SILENCE) as response:
                data = b""
                while len(data) <= size and (block := response.read(min(BLOCK, size + 1))):
                    data += block
                    progress(len(data) / size)
                received.append(data[: size + 1])
        except Exception as error:  # a broken proxy raises almost anything
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            received.append(error)

    # In a thread, since a server can drip each byte of its head just before the socket times out.
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    data = received[0] if received else TimeoutError(f"it takes more than {DEADLINE:g} seconds")
    if isinstance(data, Exception):
        reason = " ".join(f"{type(data).__name__}: {data}".split())[:300]
        raise DownloadError(f"cannot download {url}: {reason}") from data
    fault = content_fault(data, size=size, sha256=sha256)
    if fault:
        raise DownloadError(f"cannot use what {url} sent: {fault}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError:
        pass  # A cache that cannot be written costs a download next time, nothing else.
    return data


def content_fault(data: bytes, *, size: int, sha256: str) -> str | None:
    """Return what is wrong with a content, or None if it is the one expected."""
    if len(data) > size:
        return f"it is longer than {size:,} bytes"
    if len(data) < size:
        return f"it is {len(data):,} bytes long, not {size:,}"
    digest = hashlib.sha256(data).hexdigest()
    return None if digest == sha256 else f"its sha256 is {digest}, not {sha256}"
