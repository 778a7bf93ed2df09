"""Whether the code in a run's folder may run.

A custom model is code, and a folder can come from anywhere. So config.json lists the files of its
model with their SHA-256, and the user's state folder remembers the digest of each such list that
this user made on this machine. Code runs without being asked for if its list is remembered and its
bytes are those of the list, which are then the bytes that run. A folder can be moved and copied;
one that was made elsewhere, or changed since, needs ``--trust-model``.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files import FileFormatError, read_bytes
from ..models import source
from ..models.loading import split_reference

MODEL_SOURCE = "model.py"


class UntrustedModelError(PermissionError):
    """A model is code from elsewhere."""


def record_model(
    name: str, origin: Path, files: Mapping[str, bytes], config: dict[str, Any]
) -> dict[str, Any]:
    """Return what config.json says of a custom model's code, and remember that this user made it.

    Where the state folder cannot be written, nothing is remembered.

    Args:
        name: what the file defines.
        origin: the path of the file.
        files: the contents, by their paths in the run's folder.
        config: of the model.
    """
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
    with suppress(OSError):
        made = _memory(name, hashes, config)
        made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made.touch(mode=0o600)
    return {"name": name, "from": str(origin), "files": hashes}


def hold_model(path: Path, content: dict[str, Any], *, trust_model: bool) -> str:
    """Return the FILE.py:NAME of the model in a run's folder; the bytes that were checked run.

    Args:
        path: of config.json.
        content: of it, with a ``model_file``.
        trust_model: run the code whoever made it.

    Raises:
        FileFormatError: if config.json does not name the model.
        OSError: if a file cannot be read.
        UntrustedModelError: if this user did not make the code, or it was changed since.
    """
    entry = content["model_file"]
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not (name == "" or name.isidentifier()):
        raise FileFormatError(path, "must say the name of its model_file; restore it")
    file = path.parent / MODEL_SOURCE
    source.release(file)
    if not trust_model:
        hashes = entry.get("files")
        made = _memory(name, hashes, content.get("model"))
        owner = getattr(os, "geteuid", lambda: made.stat().st_uid)()
        if not isinstance(hashes, dict) or not made.is_file() or made.stat().st_uid != owner:
            raise _untrusted(file, f"was not made by you on this machine, says {made.parent}")
        files = {relative: read_bytes(path.parent / relative) for relative in hashes}
        for relative, data in files.items():
            if hashlib.sha256(data).hexdigest() != hashes[relative]:
                raise _untrusted(path.parent / relative, "was changed since you made it")
        source.hold(file, files)
    return f"{file}:{name}"


def expect_own_model(path: Path, reference: str, *, trust_model: bool) -> str:
    """Return the FILE.py:NAME that a config file gives as its model, from the file's folder.

    Raises:
        FileFormatError: for a file outside of that folder.
        UntrustedModelError: without trust_model: a config file may come from anywhere.
    """
    name = split_reference(reference)[1]
    file = Path(os.path.realpath(path.parent / split_reference(reference)[0]))
    if not file.is_relative_to(os.path.realpath(path.parent)):
        raise FileFormatError(path, f"must name a model in its folder: got {file}; pass --model")
    if not trust_model:
        raise _untrusted(file, f"is named by {path}, not by you")
    return f"{file}:{name}"


def _untrusted(file: Path, why: str) -> UntrustedModelError:
    return UntrustedModelError(
        f"the code of a model runs only if you made it here: {file} {why}; open it and the .py "
        "files beside it in an editor, and if they are safe, pass --trust-model"
    )


def _memory(name: str, hashes: Any, config: Any) -> Path:
    """Return the file that says that this user made such a model."""
    import platformdirs

    digest = hashlib.sha256(json.dumps([name, hashes, config], sort_keys=True).encode())
    folder = platformdirs.user_state_path("functional_lm", appauthor=False)
    return folder / "models" / digest.hexdigest()
