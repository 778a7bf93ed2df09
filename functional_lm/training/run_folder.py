"""The folder that a run leaves.

    model.safetensors   the weights with the lowest validation loss
    last.safetensors    the weights of the last step
    config.json         the model's config, the settings, the text, the model's file if it has one
    tokenizer.json      the tokenizer
    model.py            a copy of the file that the model came from, if it was given by --model,
                        beside copies of those that it imported from its own folder
    metrics.jsonl       one object for each step
    sample.txt          a text that the last weights wrote

Each appears whole, by a rename; metrics.jsonl then grows line by line.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Layer, Tree, expect_dtype
from ..files import write_atomic
from ..models import transformer
from ..models.transformer import Config
from ..text import CharTokenizer
from .model_file import imported_neighbours, load_model
from .objective import Objective

BEST_FILE, LAST_FILE = "model.safetensors", "last.safetensors"
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
MODEL_SOURCE, METRICS_FILE, SAMPLE_FILE = "model.py", "metrics.jsonl", "sample.txt"


class Run(NamedTuple):
    """A run as `open_run` reads it."""

    objective: Objective  # the model, its config and loss
    params: Tree
    tokenizer: CharTokenizer
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
        ValueError: naming the file, if it is damaged or holds another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(Path(path).read_bytes())
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; restore it from a copy") from None
    expected = dict(pytree.leaves_with_path(like))
    for name in sorted(expected.keys() ^ tensors.keys()):
        fault = "lacks" if name in expected else "has an unknown"
        raise ValueError(f"{path} must hold the model of its config: it {fault} {name}")
    for name, leaf in expected.items():
        if (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"{path} must hold the model of its config: {name} must be {leaf.dtype} "
                f"{leaf.shape}, got {tensors[name].dtype} {tensors[name].shape}"
            )
    return pytree.map_with_path(lambda name, leaf: tensors[name], like)


def save_run(
    folder: str | Path,
    params: Tree,
    config: Config,
    tokenizer: CharTokenizer,
    *,
    settings: dict[str, Any] | None = None,
    model_file: str | None = None,
) -> None:
    """Write a run; the folder is made if need be.

    Args:
        folder: where to.
        params: the weights, written as the best.
        config: of the model.
        tokenizer: of the text.
        settings: what else config.json shall hold.
        model_file: ``FILE.py:NAME`` of a model that is not the transformer; the file is copied.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = str(pytree.leaves(params)[0].dtype)
    content: dict[str, Any] = {"model": dataclasses.asdict(config), "dtype": dtype}
    content |= settings or {}
    if model_file is not None:
        file, _, name = model_file.partition(":")
        content["model_file"] = {"name": name, "from": str(Path(file).resolve())}
        write_atomic(folder / MODEL_SOURCE, Path(file).read_bytes())
        for neighbour in imported_neighbours(Path(file)):
            write_atomic(folder / neighbour.name, neighbour.read_bytes())
    write_atomic(folder / TOKENIZER_FILE, tokenizer.to_json())
    write_atomic(folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
    save_weights(folder / BEST_FILE, params)


def load_run(folder: str | Path, weights: str = BEST_FILE) -> tuple[Tree, Config, CharTokenizer]:
    """Return ``(params, config, tokenizer)`` of a run; see `open_run`."""
    run = open_run(folder, weights)
    return run.params, run.objective.config, run.tokenizer


def open_run(folder: str | Path, weights: str = BEST_FILE) -> Run:
    """Return a run with its model.

    A model that came from a file is run from the copy in the folder.

    Args:
        folder: of the run.
        weights: the name of the weights' file.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: naming the file that is damaged, or does not fit the others.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"a run folder must hold {CONFIG_FILE}: {folder} does not; pass what --out named"
        )
    settings = _read_settings(folder / CONFIG_FILE)
    tokenizer = CharTokenizer.load(folder / TOKENIZER_FILE)
    config: Config = settings.pop("config")
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{folder} must hold one model: its tokenizer has {tokenizer.vocab_size} tokens, its "
            f"config {config.vocab_size}; the files come from different runs"
        )
    model: Layer = transformer
    if "model_file" in settings:
        model = load_model(f"{folder / MODEL_SOURCE}:{settings['model_file']['name']}")
    objective = Objective(model, config)
    params = load_weights(folder / weights, objective.init((0,), dtype=settings["dtype"]))
    return Run(objective, params, tokenizer, settings)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: Any = json.loads(path.read_text(encoding="utf-8"))
        settings["config"] = Config(**settings["model"])
        settings["dtype"] = expect_dtype(settings.get("dtype", "float32"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a run: {error}") from None
    return settings
