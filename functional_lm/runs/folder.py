"""The folder that a run leaves.

    model.safetensors   the weights with the lowest validation loss
    last.safetensors    the weights of the last step
    config.json         the model's config, the settings, the text, the model's file if it has one
    tokenizer.json      the tokenizer
    model.py            a copy of the file that the model came from, if it was given by --model,
                        beside copies of those that it imported from its own folder
    metrics.jsonl       one object for each step
    sample.txt          texts that the model wrote
    checkpoints/        where the run can go on from, see `run_checkpoints`
    .lock               who trains here at present, see `run_lock`

The folder appears as a whole, and so does each file; metrics.jsonl then grows line by line.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Tree, expect_dtype
from ..files import FileFormatError, read_json, read_tensors, write_atomic
from ..models import LanguageModel
from ..models.loading import find, imported_neighbours, of_config
from ..text import Tokenizer, load_tokenizer

BEST_FILE, LAST_FILE = "model.safetensors", "last.safetensors"
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
MODEL_SOURCE, METRICS_FILE, SAMPLE_FILE = "model.py", "metrics.jsonl", "sample.txt"


class Run(NamedTuple):
    """A run as `open_run` reads it."""

    model: LanguageModel
    params: Tree
    tokenizer: Tokenizer
    settings: dict[str, Any]  # all that config.json holds


def save_weights(path: str | Path, params: Tree) -> None:
    """Write a tree to a safetensors file; a leaf has its path as its name."""
    from safetensors.numpy import save

    # The writer takes the raw bytes of an array: without a C-contiguous one it saves other values.
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in pytree.leaves_with_path(params)}
    write_atomic(path, save(tensors))


def load_weights(path: str | Path, like: Tree) -> Tree:
    """Read a tree of the structure, shapes and dtypes of another.

    Raises:
        OSError: if the file cannot be read.
        FileFormatError: if it is damaged or holds another model.
    """
    tensors, _ = read_tensors(path)
    expected = dict(pytree.leaves_with_path(like))
    for name in sorted(expected.keys() ^ tensors.keys()):
        fault = "lacks" if name in expected else "has an unknown"
        raise FileFormatError(path, f"must hold the model of its config: it {fault} {name}")
    for name, leaf in expected.items():
        if (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype):
            raise FileFormatError(
                path,
                f"must hold the model of its config: {name} must be {leaf.dtype} "
                f"{leaf.shape}, got {tensors[name].dtype} {tensors[name].shape}",
            )
    return pytree.map_with_path(lambda name, leaf: tensors[name], like)


def change_settings(folder: str | Path, training: dict[str, Any]) -> None:
    """Write other training settings to a run's config.json.

    Raises:
        OSError: if it cannot be read or written.
        FileFormatError: if it is damaged.
    """
    content = read_config(folder)
    changed = {**content, "training": {**content.get("training", {}), **training}}
    if changed != content:
        write_atomic(Path(folder) / CONFIG_FILE, json.dumps(changed, indent=2) + "\n")


def save_run(
    folder: str | Path,
    params: Tree,
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    settings: dict[str, Any] | None = None,
) -> None:
    """Write a run; the folder is made if need be. The file of a custom model is copied.

    Args:
        folder: where to.
        params: the weights, written as the best.
        model: the language model.
        tokenizer: of the text.
        settings: what else config.json shall hold.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = str(pytree.leaves(params)[0].dtype)
    file, _, name = model.name.partition(":")
    custom = Path(file).suffix == ".py"
    content: dict[str, Any] = {"architecture": None if custom else model.name}
    content["model"] = dataclasses.asdict(model.given or model.config)
    content |= {"dtype": dtype, **(settings or {})}
    if custom:
        content["model_file"] = {"name": name, "from": str(Path(file).resolve())}
        write_atomic(folder / MODEL_SOURCE, Path(file).read_bytes())
        for neighbour in imported_neighbours(Path(file)):
            write_atomic(folder / neighbour.name, neighbour.read_bytes())
    write_atomic(folder / TOKENIZER_FILE, tokenizer.to_json())
    write_atomic(folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
    save_weights(folder / BEST_FILE, params)


def open_run(folder: str | Path, weights: str = BEST_FILE) -> Run:
    """Return a run with its model.

    A model that came from a file is run from the copy in the folder.

    Args:
        folder: of the run.
        weights: the name of the weights' file.

    Raises:
        OSError: if a file is missing or cannot be read.
        FileFormatError: if one is damaged, or does not fit the others.
    """
    folder = Path(folder)
    settings = read_config(folder)
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    model, dtype = _model(settings, folder)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise FileFormatError(
            folder,
            f"must hold one model: its tokenizer has {tokenizer.vocab_size} tokens, its "
            f"config {model.config.vocab_size}; the files come from different runs",
        )
    path = folder / weights
    if model.n_parameters > path.stat().st_size:
        raise FileFormatError(  # before its parameters are made, since they may fit no memory
            path,
            f"must hold the model of its config: that has {model.n_parameters:,} parameters, "
            f"more than the file has bytes; restore {CONFIG_FILE} or the file",
        )
    params = load_weights(path, model.init((0,), dtype=dtype))
    return Run(model, params, tokenizer, settings)


def _model(settings: dict[str, Any], folder: Path) -> tuple[LanguageModel, Any]:
    """Return the model that a run's config.json describes, and its dtype."""
    path = folder / CONFIG_FILE
    try:
        reference = settings["architecture"]
        if "model_file" in settings:
            reference = f"{folder / MODEL_SOURCE}:{settings['model_file']['name']}"
        dtype = expect_dtype(settings.get("dtype", "float32"))
        return of_config(reference, find(reference), settings["model"]), dtype
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)[:300]
        raise FileFormatError(path, f"is not the config of a run: {reason}") from None


def expect_run(folder: Path) -> Path:
    """Return the path of a run's config.json.

    Raises:
        FileNotFoundError: if the folder has none.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"a run folder must hold {CONFIG_FILE}: {folder} does not; pass what --out named"
        )
    return path


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return what a run's config.json holds, unchecked.

    Raises:
        OSError: if there is none, or it cannot be read.
        FileFormatError: if it is damaged.
    """
    path = expect_run(Path(folder))
    content = read_json(path)
    if not isinstance(content, dict):
        raise FileFormatError(path, "is not the config of a run: it must hold settings by name")
    return content


def vocab_size_of(config: dict[str, Any]) -> int | None:
    """Return the size of the vocabulary in what `read_config` returned, if it has one."""
    model = config.get("model")
    size = model.get("vocab_size") if isinstance(model, dict) else None
    return size if isinstance(size, int) else None
