"""The Jacobians of ours and of the truth, entry by entry, where they are small enough."""

import functools

import numpy as np

from ... import pytree
from ...contract import Array
from ..oracle import JaxOracle
from ..subject import Comparison, Examination
from .network import Network

__all__ = ["MOST_OUTPUTS", "Jacobians", "jacobians_of"]

MOST_OUTPUTS, MOST_INPUTS = 256, 400
"""Entries of y, and of a leaf, up to which its Jacobian is computed."""


def jacobians_of(examination: Examination, draw: int = 0) -> "Jacobians":
    """Return the Jacobians at the inputs of one draw, computed once.

    Raises:
        ValueError: if there are too many entries.
    """
    key = f"jacobians {draw}"
    if key not in examination.memory:
        examination.memory[key] = Jacobians(examination, examination.comparisons[draw])
    found: Jacobians = examination.memory[key]
    return found


class Jacobians:
    """What every entry of g gives, at the inputs of one comparison."""

    def __init__(self, examination: Examination, comparison: Comparison) -> None:
        self._examination, self.at = examination, comparison
        self._pushes: dict[str, tuple[Array, Array]] = {}
        leaves = pytree.leaves(comparison.g)
        self.outputs = sum(leaf.size for leaf in leaves)
        if self.outputs > MOST_OUTPUTS:
            raise ValueError(f"y has {self.outputs} entries, above {MOST_OUTPUTS}")
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        self.units = []
        for row in np.eye(self.outputs):
            parts = iter(np.split(row, ends))
            unit = pytree.map(lambda leaf, p=parts: next(p).reshape(leaf.shape), comparison.g)
            self.units.append(unit)

    @functools.cached_property
    def ours(self) -> dict[str, Array]:
        """The layer's own, (entries of y, entries of the leaf), by path."""
        subject = self._examination.subject
        _, residuals = subject.forward(self.at.inputs)
        rows: dict[str, list[Array]] = {}
        for unit in self.units:
            pair = dict(zip(("params", "x"), subject.vjp(residuals, unit), strict=True))
            for path, leaf in pytree.leaves_with_path(pair):
                rows.setdefault(path, []).append(leaf.reshape(-1))
        return {path: np.stack(column) for path, column in rows.items()}

    @functools.cached_property
    def exact(self) -> dict[str, Array]:
        """The truth, likewise."""
        rows: dict[str, list[Array]] = {}
        for unit in self.units:
            tree = self._examination.oracle.results(self.at.inputs, unit, "float64")
            for path, leaf in pytree.leaves_with_path(tree):
                rows.setdefault(path, []).append(leaf.reshape(-1))
        return {path: np.stack(column) for path, column in rows.items() if path in self.paths}

    @property
    def paths(self) -> list[str]:
        """The leaves that have a gradient, in the order of the oracle."""
        tree = dict(zip(("params", "x"), self.at.inputs, strict=True))
        return [path for path, leaf in pytree.leaves_with_path(tree) if leaf.dtype.kind == "f"]

    @functools.cached_property
    def network(self) -> Network | None:
        """The reference as a network; None where it cannot be taken apart."""
        oracle = self._examination.oracle
        if not isinstance(oracle, JaxOracle):
            return None
        if "network" not in oracle.memory:
            try:
                network = Network(oracle, self.at.inputs, self.at.g)
                leaves = network.pull([self.at.g], self.at.inputs)[1]
            except Exception:  # a reference that cannot be taken apart is no fault of the layer
                network, leaves = None, []
            truth = dict(pytree.leaves_with_path(self.at.exact))
            same = all(
                np.allclose(
                    mine[0], truth[path], rtol=1e-7, atol=1e-9 * abs(truth[path]).max(initial=0)
                )
                for path, mine in zip(self.paths, leaves, strict=False)
            )
            oracle.memory["network"] = network if same else None
        found: Network | None = oracle.memory["network"]
        return found

    @functools.cached_property
    def down(self) -> Array:
        """The cotangents of the network's edges, (entries of y, entries of all edges)."""
        assert self.network is not None
        return self.network.pull(self.units, self.at.inputs)[0]

    @property
    def operands(self) -> Array:
        """The operands of the network's edges."""
        return self._pushed(self.paths[0])[0]

    def up(self, path: str) -> Array:
        """The derivatives of the edges' operands by a leaf, (entries of all edges, of the leaf)."""
        return self._pushed(path)[1]

    def _pushed(self, path: str) -> tuple[Array, Array]:
        assert self.network is not None
        if path not in self._pushes:
            index = self.paths.index(path)
            self._pushes[path] = self.network.push(index, self.at.inputs)
        return self._pushes[path]
