"""The projections of a model: its matrices by path, and the maps that lie side by side in each."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..compose import keywords_of_init, map_members
from ..contract import Key, Tree
from .language_model import LanguageModel

__all__ = ["Projection", "matrices", "projections"]

NAMES = {"qkv": ("q", "k", "v"), "up": ("gate", "value")}
"""The names of the maps in a projection; those of others are numbers."""


class Projection(NamedTuple):
    """A layer from d_in to d_out columns; its weight is the leaf ``{path}.weight``."""

    layer: Any
    d_in: int
    d_out: tuple[int, ...]  # the columns of each map
    names: tuple[str, ...]  # of the maps, if there are several

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """The first column of each of several maps, and the one behind its last."""
        stops = np.cumsum(self.d_out).tolist()
        return dict(zip(self.names, zip([0, *stops], stops, strict=False), strict=False))


def projections(model: LanguageModel) -> dict[str, Projection]:
    """Return the projections in the blocks of a model by path.

    A projection is a layer whose ``init`` names ``d_in`` and ``d_out``. One with an adapter counts
    as a whole; inside, the weight is the leaf ``{path}.base.weight``.
    """
    found: dict[str, _Recorder] = {}

    def visit(layer: Any, own: Tree, path: str) -> Any:
        if {"d_in", "d_out"} <= keywords_of_init(layer):
            return found.setdefault(path, _Recorder(layer))
        return map_members(layer, own, visit, path)

    recording = model.model.map_blocks(model.shapes(), visit)
    dataclasses.replace(model, model=recording).shapes()
    return {path: recorder.projection(path) for path, recorder in found.items()}


def matrices(model: LanguageModel) -> dict[str, tuple[int, ...]]:
    """Return by path each leaf that holds matrices in the blocks, with their columns.

    These are the weights of projections, and the stacks (E, ...) of experts.
    """
    leaves = dict(pytree.leaves_with_path(model.shapes()))
    weights = {f"{path}.weight": one.d_out for path, one in projections(model).items()}
    found = {path: columns for path, columns in weights.items() if path in leaves}
    for path, leaf in leaves.items():
        if path.endswith(".experts.up"):  # gate and value, if gated
            down = leaves[path.removesuffix("up") + "down"]
            found[path] = (down.shape[1],) * (leaf.shape[2] // down.shape[1])
            found[path.removesuffix("up") + "down"] = down.shape[2:]
    return found


class _Recorder:
    """A projection that notes the sizes that its ``init`` gets."""

    d_in: int
    d_out: int | tuple[int, ...]

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.init_keywords = keywords_of_init(layer)
        self.forward, self.vjp = layer.forward, layer.vjp

    def init(self, key: Key | None, **sizes: Any) -> Tree:
        self.d_in, self.d_out = sizes["d_in"], sizes["d_out"]
        return self._layer.init(key, **sizes)

    def projection(self, path: str) -> Projection:
        sizes = tuple(np.atleast_1d(self.d_out).tolist())
        known = NAMES.get(path.rpartition(".")[2], ())
        names = known if len(known) == len(sizes) else tuple(map(str, range(len(sizes))))
        return Projection(self._layer, self.d_in, sizes, names if len(sizes) > 1 else ())
