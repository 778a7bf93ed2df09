"""A reference as a network of linear maps: what its backward does between any two of its values.

A traced reference is a list of operations; each floating operand of one is an edge. At given inputs
the backward is linear in g. With ``down[g, e]`` the cotangent that an edge gets from each entry of
g, and ``up[e, leaf]`` the derivative of its operand by a leaf, the paths through the edge add
``down·up`` to the Jacobian of the leaf. A backward that is wrong in one place has ``down·M·up`` in
its stead, so M can be solved for, whatever the mistake is.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array
from ..oracle import SOON, JaxOracle
from ..subject import Comparison, Examination
from .replay import has_path
from .steps import Step, is_constant, is_floating, steps_of

__all__ = ["CHUNK", "MOST_OUTPUTS", "Edge", "Jacobians", "Network", "jacobians_of"]

MOST_OUTPUTS, MOST_INPUTS = 400, 400
"""Entries of y, and of a leaf, up to which its Jacobian is computed."""

CHUNK = 64

MOST_ENTRIES = 20_000
"""Of all edges together."""


_REARRANGING = {"gather", "slice", "reshape", "transpose", "broadcast_in_dim", "concatenate"}
_REARRANGING |= {"squeeze", "pad", "rev", "stack", "dynamic_slice", "expand_dims", "select_n"}

_ENTRYWISE = {"add", "sub", "mul", "div", "max", "min", "pow", "add_any", "atan2", "rem"}


@dataclasses.dataclass(frozen=True, eq=False)
class Edge:
    """One floating operand of one operation, or the indices or the mask that it goes by."""

    step: Step
    operand: int
    place: slice  # in the vector of all edges
    shape: tuple[int, ...]  # of what the operation combines: with its broadcasting
    code: Any  # the turns of a loop share it
    source: int  # the variable that it reads
    target: int  # the first output of the operation

    @property
    def floating(self) -> bool:
        """Whether a gradient flows through the operand; none does through indices and masks."""
        return is_floating(self.variable)

    @property
    def variable(self) -> Any:
        """What it reads."""
        return self.step.inputs[0 if self.step.name == "output" else self.operand]

    def __str__(self) -> str:
        if self.step.name == "output":
            return "g"
        name, line = self.step.name, self.step.line
        return f"operand {self.operand + 1} of `{name}`" + (f" in `{line}`" if line else "")


class Network:
    """The operations of a reference at inputs of one structure.

    Raises:
        ValueError: for a reference of too many operations.
    """

    def __init__(self, oracle: JaxOracle, inputs: Any, g: Any) -> None:
        jax = self._jax = oracle.jax
        self._oracle = oracle
        with oracle.tracing("float64"):
            self._closed = jax.make_jaxpr(oracle.function())(*inputs)
        self._output = jax.tree.structure(g)
        self._steps = list(steps_of(self._closed.jaxpr))
        self.edges = list(self._find_edges())
        self._makers = {id(s.outputs[0]): s for s in self._steps if s.bound is None}
        self._of_step: dict[int, list[Edge]] = {}
        for edge in self.edges:
            self._of_step.setdefault(id(edge.step), []).append(edge)
        self.size = self.edges[-1].place.stop if self.edges else 0
        if not 0 < self.size <= MOST_ENTRIES:
            raise ValueError(f"the reference has {self.size} entries, above {MOST_ENTRIES}")
        self._compiled: dict[str, Any] = {}
        self._live = np.ones(len(self.edges))
        self._finite = False
        self._finite = bool(np.isfinite(self.push(0, inputs)[0]).all())
        cotangents = np.abs(self.pull([g], inputs)[0][0])
        for i, edge in enumerate(self.edges):
            # What is subtracted to keep exp in range has no gradient, and no backward writes one.
            largest = cotangents[edge.place].max(initial=0.0)
            if edge.step.name == "reduce_max" and largest <= 1e-12 * cotangents.max():
                self._live[i] = 0.0

    def _find_edges(self) -> Iterator[Edge]:
        start = 0
        roots: dict[int, int] = {}
        for step in self._steps:
            for variable, source in zip(step.outputs, step.bound or (), strict=False):
                roots[id(variable)] = roots.get(id(source), id(source))
            for i, variable in enumerate(step.inputs):
                if has_path(step, variable) or _is_index(step, i, variable):
                    inner, result = (tuple(v.aval.shape) for v in (variable, step.outputs[0]))
                    spread = step.name in _ENTRYWISE and len(inner) == len(result)
                    shape = result if spread else inner
                    size = int(np.prod(shape))
                    line = (step.line, step.name, i, shape, result)
                    code = line if step.line else (step.tag, i)
                    source = roots.get(id(variable), id(variable))
                    yield Edge(
                        step,
                        i,
                        slice(start, start + size),
                        shape,
                        code,
                        source,
                        id(step.outputs[0]),
                    )
                    start += size
        for i, variable in enumerate(self._closed.jaxpr.outvars):
            if is_floating(variable):
                shape = tuple(variable.aval.shape)
                size = int(np.prod(shape))
                source = roots.get(id(variable), id(variable))
                step = Step("output", [variable], [variable], list)
                place = slice(start, start + size)
                yield Edge(step, i, place, shape, ("output", i), source, 0)
                start += size

    def maker_of(self, edge: Edge) -> Step | None:
        """Return the operation that an edge reads from; None for an input."""
        return self._makers.get(edge.source)

    def edges_of(self, step: Step) -> list[Edge]:
        """Return the floating operands of an operation."""
        return [edge for edge in self._of_step.get(id(step), []) if edge.floating]

    def rearranged_by(self, edge: Edge) -> list[Edge]:
        """Return the edges whose entries an edge reads in another arrangement."""
        maker = self.maker_of(edge)
        if maker is None or maker.name not in _REARRANGING:
            return []
        above = self.edges_of(maker)
        return above + [other for e in above for other in self.rearranged_by(e)]

    def cotangent_of(self, target: int, down: Array) -> Array | None:
        """Return the cotangent of a variable from those of all edges; None if none reads it."""
        parts = []
        for edge in self.edges:
            if edge.source == target:
                inner = edge.variable.aval.shape
                whole = down[:, edge.place].reshape(-1, *edge.shape)
                axes = [i for i, size in enumerate(edge.shape) if size != inner[i]]
                summed = whole.sum(axis=tuple(i + 1 for i in axes))
                parts.append(summed.reshape(len(down), -1))
        return sum(parts[1:], start=parts[0]) if parts else None

    def pull(
        self, g: list[Any], inputs: Any, shifts: Any = 0.0, anew: Any = 0.0, gates: Any = 1.0
    ) -> tuple[Array, list[Array]]:
        """Return the cotangents of all edges and of each floating leaf, a row for each g.

        Args:
            g: cotangents of the output.
            inputs: (params, x).
            shifts: what is added to each entry of an edge where the backward reads it, for each g.
            anew: 1 where the backward computes all that follows anew from what it reads there.
            gates: what the cotangent of each edge is multiplied by, for each g and edge.
        """

        def run(shifts: Any, anew: Any, gates: Any, g: Any, params: Any, x: Any) -> Any:
            def value(moves_and_params: Any, x: Any) -> Any:
                moves, params = moves_and_params
                return self._value(gates, (shifts, moves, anew), params, x)[0]

            moves = [self._jax.numpy.zeros(edge.shape) for edge in self.edges]
            return self._oracle.differentiated(value)((moves, params), x, g)[1]

        count, rows = len(g), [self._jax.tree.leaves(one) for one in g]
        columns = [np.stack(column) for column in zip(*rows, strict=True)]
        columns.append(np.broadcast_to(anew, (count,)))
        columns.append(np.broadcast_to(gates * self._live, (count, len(self.edges))))
        shifts = np.broadcast_to(shifts, (count, self.size))
        columns += [shifts[:, e.place].reshape(count, *e.shape) for e in self.edges]
        found = []
        for start in range(0, count, CHUNK):
            chunk = [_padded(a[start : start + CHUNK]) for a in columns]
            n = len(rows[0])
            tree = self._jax.tree.unflatten(self._output, chunk[:n])
            batch = (chunk[n + 2 :], *chunk[n : n + 2], tree, *inputs)
            if "pull" not in self._compiled:
                function = self._jax.vmap(run, in_axes=(0, 0, 0, 0, None, None))
                self._compiled["pull"] = self._oracle.compiled(
                    function, *batch, dtype="float64", options=SOON
                )
            with self._jax.enable_x64(True):
                found.append([np.asarray(a) for a in self._compiled["pull"](*batch)])
        results = [np.concatenate(column)[:count] for column in zip(*found, strict=True)]
        edges = [a.reshape(count, -1) for a in results[: len(self.edges)]]
        return np.concatenate(edges, axis=1), results[len(self.edges) :]

    def push(self, leaf: int, inputs: Any) -> tuple[Array, Array]:
        """Return every edge's operand, and its derivative by each entry of a floating leaf."""
        jax = self._jax
        flat, structure = jax.tree.flatten(inputs)
        floating = [i for i, a in enumerate(flat) if np.asarray(a).dtype.kind == "f"]

        def run(tangents: Any, live: Any, params: Any, x: Any) -> Any:
            leaves = jax.tree.leaves((params, x))

            def operands(given: Any) -> Any:
                merged = list(leaves)
                for i, a in zip(floating, given, strict=True):
                    merged[i] = a
                return self._value(live, None, *jax.tree.unflatten(structure, merged))[1]

            return jax.jvp(operands, ([leaves[i] for i in floating],), (tangents,))

        size = flat[floating[leaf]].size
        found = []
        for start in range(0, size, CHUNK):
            tangents = [np.zeros((CHUNK, *np.shape(flat[i]))) for i in floating]
            here = np.arange(start, min(size, start + CHUNK))
            tangents[leaf].reshape(CHUNK, -1)[here - start, here] = 1.0
            batch = tangents, self._live, *inputs
            if "push" not in self._compiled:
                function = jax.vmap(run, in_axes=(0, None, None, None), out_axes=(None, 0))
                self._compiled["push"] = self._oracle.compiled(
                    function, *batch, dtype="float64", options=SOON
                )
            with jax.enable_x64(True):
                operands, derivatives = self._compiled["push"](*batch)
            found.append(np.asarray(derivatives)[: here.size])
        return np.asarray(operands), np.concatenate(found).T

    def _value(self, gates: Any, changes: Any, params: Any, x: Any) -> tuple[Any, Any]:
        """Return the output, with the derivative asked for, and the operands of all edges.

        ``changes`` are (shifts, moves, anew), or None for none. With ``moves`` zero, their
        derivative is the cotangent of the edges.
        """
        jax, jnp, stop = self._jax, self._jax.numpy, self._jax.lax.stop_gradient
        jaxpr = self._closed.jaxpr
        values = dict(zip(map(id, jaxpr.constvars), self._closed.consts, strict=True))
        values |= dict(zip(map(id, jaxpr.invars), jax.tree.leaves((params, x)), strict=True))
        numbers = {id(edge): i for i, edge in enumerate(self.edges)}

        def read(variable: Any) -> Any:
            return variable.val if is_constant(variable) else values[id(variable)]

        def change(a: Any) -> Any:
            return a - stop(a) if self._finite else jnp.where(jnp.isfinite(a), a - stop(a), 0.0)

        seen = []
        for step in self._steps:
            if step.bound is not None:
                values |= {
                    id(v): read(source) for v, source in zip(step.outputs, step.bound, strict=True)
                }
                continue
            operands = [read(v) for v in step.inputs]
            edges = self._of_step.get(id(step), ())
            for edge in edges:
                operands[edge.operand] = jnp.broadcast_to(operands[edge.operand], edge.shape)
                seen.append(operands[edge.operand].reshape(-1) * 1.0)
            moved = list(operands)
            for edge in edges:
                number, v = numbers[id(edge)], operands[edge.operand]
                if changes is None:
                    if step.name == "reduce_max":
                        operands[edge.operand] = stop(v) + gates[number] * change(v)
                    continue
                shifts, moves, anew = changes
                shift, move = shifts[number], moves[number]
                if edge.floating:
                    moved[edge.operand] = stop(v) + shift + gates[number] * change(v) + move
                    operands[edge.operand] = v + anew * shift
                else:
                    moved[edge.operand] = jnp.round(v + shift).astype(v.dtype)
                    operands[edge.operand] = jnp.round(v + anew * shift).astype(v.dtype)
            outputs = step.apply(operands)
            if edges and changes is not None:
                outputs = [
                    stop(a) + change(b) if jnp.issubdtype(a.dtype, jnp.floating) else a
                    for a, b in zip(outputs, step.apply(moved), strict=True)
                ]
            values |= dict(zip(map(id, step.outputs), outputs, strict=True))
        outputs = [read(v) for v in jaxpr.outvars]
        for number, edge in enumerate(self.edges):
            if edge.step.name == "output":
                v = outputs[edge.operand] * 1.0
                seen.append(v.reshape(-1))
                if changes is not None:
                    outputs[edge.operand] = stop(v) + gates[number] * change(v) + changes[1][number]
        return jax.tree.unflatten(self._output, outputs), jnp.concatenate(seen)


def _is_index(step: Step, i: int, variable: Any) -> bool:
    """Tell whether an operand says which entries of the others are taken."""
    if step.name not in ("select_n", "gather") or i != (1 if step.name == "gather" else 0):
        return False
    others = [v for v in step.inputs if v is not variable]
    return not is_constant(variable) and any(has_path(step, v) for v in others)


def _padded(rows: Array) -> Array:
    return np.pad(rows, ((0, CHUNK - len(rows)), *((0, 0),) * (rows.ndim - 1)), "edge")


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
