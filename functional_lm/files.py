"""Files that appear whole or not at all. Standard library only."""

import os
import tempfile
from pathlib import Path


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write a file under a temporary name in the same folder, then rename it.

    A reader sees the old content or the new, never a part. Text is written as UTF-8.

    Raises:
        OSError: if it cannot be written; then nothing is left behind, and an older file stays.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
