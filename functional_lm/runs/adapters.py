"""Adapters in a file of their own: a few leaves, to be put on any copy of the model they tuned."""

import dataclasses
from pathlib import Path

from .. import pytree
from ..contract import Tree
from ..files import FileFormatError
from ..models import LanguageModel
from ..models.adapting import AdapterConfig, adapt, adapters_of, with_adapters, with_leaves
from .checkpoint import load_checkpoint, save_checkpoint

__all__ = ["load_adapters", "save_adapters"]


def save_adapters(path: str | Path, model: LanguageModel, params: Tree) -> None:
    """Write the adapters that were put on a model last; see `save_checkpoint`.

    Args:
        path: of the file.
        model: from `with_adapters`.
        params: its parameters.
    """
    tree: Tree = {}
    for leaf_path, leaf in adapters_of(model, params).items():
        *folders, name = leaf_path.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    save_checkpoint(path, tree, metadata={"adapters": dataclasses.asdict(model.adapted.config)})


def load_adapters(
    path: str | Path, model: LanguageModel, params: Tree
) -> tuple[LanguageModel, Tree]:
    """Return a model with the adapters of a file, and its parameters.

    The model may have adapters already: then both add up.

    Args:
        path: of a file from `save_adapters`, such as the adapters.safetensors of a run.
        model: the model that they tuned, or one of the same sizes.
        params: its parameters.

    Raises:
        OSError: if the file cannot be read.
        FileFormatError: if it is damaged, or holds adapters of another model.
    """
    tree, metadata = load_checkpoint(path)
    try:
        config = AdapterConfig(**metadata["adapters"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(path, f"holds no adapters: {error}; pass what was saved") from None
    adapted = with_adapters(model, config)
    fresh = adapt(adapted, params, (0,))
    leaves = dict(pytree.leaves_with_path(tree))
    shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    expected = adapters_of(adapted, fresh)
    if shapes != {name: (leaf.shape, leaf.dtype) for name, leaf in expected.items()}:
        raise FileFormatError(path, "holds adapters of another model; pass the one that they tuned")
    return adapted, with_leaves(fresh, leaves)
