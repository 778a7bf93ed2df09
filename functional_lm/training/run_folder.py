"""The folder that a run leaves: ``model.safetensors``, ``config.json``, ``tokenizer.json``."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Tree
from ..models.transformer import Config
from ..text import CharTokenizer

MODEL_FILE, CONFIG_FILE, TOKENIZER_FILE = "model.safetensors", "config.json", "tokenizer.json"


def save_run(folder: str | Path, params: Tree, config: Config, tokenizer: CharTokenizer) -> None:
    """Write a run; each file appears whole, by a rename, and the folder is made if need be.

    A leaf is stored under its path, such as ``blocks.0.attention.qkv``.
    """
    from safetensors.numpy import save

    # The writer takes the raw bytes of an array: without a C-contiguous one it saves other values.
    tensors = {path: np.ascontiguousarray(leaf) for path, leaf in pytree.leaves_with_path(params)}
    settings = {"model": dataclasses.asdict(config)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TOKENIZER_FILE, tokenizer.to_json().encode())
    _write(folder / CONFIG_FILE, json.dumps(settings, indent=2).encode())
    _write(folder / MODEL_FILE, save(tensors))


def load_run(folder: str | Path) -> tuple[Tree, Config, CharTokenizer]:
    """Return ``(params, config, tokenizer)`` of a run.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: naming the file that is damaged, or does not fit the others.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"a run folder must hold {CONFIG_FILE}: {folder} does not; pass what --out named"
        )
    config = _read_config(folder / CONFIG_FILE)
    tokenizer = CharTokenizer.load(folder / TOKENIZER_FILE)
    path = folder / MODEL_FILE
    try:
        params = pytree.from_paths(load(path.read_bytes()))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{folder} must hold one model: its tokenizer has {tokenizer.vocab_size} tokens, its "
            f"config {config.vocab_size}; the files come from different runs"
        )
    return params, config, tokenizer


def _read_config(path: Path) -> Config:
    try:
        settings: Any = json.loads(path.read_text(encoding="utf-8"))
        return Config(**settings["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a run: {error}") from None


def _write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in the same folder, then rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
