"""Replay the oracle with one step of the reference differentiated wrongly, and see what matches.

The reference is traced to its single operations. Every floating operand of every operation is a
site at which a hand-written backward may go wrong. With v the operand, s(v) = stop_gradient(v) and
f the operation,

    f(…, s(v) + c·(v − s(v)), …) + Σₘ wₘ·aₘ(v − s(v))

has the value of f whatever c and w are, but another derivative: c = 0 stops the path through this
operand, another c scales it, and each aₘ is one of the wrong derivatives of `sites`. Where a sum
runs over an axis, the path is also kept at one of its indices only, or at all others.

One more wrong derivative is that of another function, in which the value of an operation is
multiplied by c: a vjp that computes that value anew, and otherwise than forward did.

The replays of all sites are one compiled function of (c, w).
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..oracle import JaxOracle
from .sites import SUMMED, WRONG, Site, has_path, kinds
from .steps import Step, is_constant, is_floating, steps_of

RICH_STEPS = 200
"""Of a longer reference only the paths are stopped and scaled."""

MAX_SITES = 2000

PARTS = 8
"""Axes up to this size are tried index by index, kept alone or left out."""

CHUNK = 64


class Replays:
    """All replays of a reference at inputs of one structure."""

    def __init__(self, oracle: JaxOracle, inputs: Any) -> None:
        """Trace the reference.

        Raises:
            ValueError: for a reference of too many operations.
        """
        self._oracle = oracle
        jax = oracle.jax
        with jax.enable_x64(True):
            self._closed = jax.make_jaxpr(oracle.function())(*inputs)
            output = jax.eval_shape(oracle.function(), *inputs)
        self._output = jax.tree.structure(output)
        self._steps = list(steps_of(self._closed.jaxpr))
        self._by_operand: dict[tuple[Any, int], list[Site]] = {}
        self._axes: dict[tuple[Any, int], list[tuple[int, int, int]]] = {}  # (axis, size, column)
        self._columns = 0
        self.sites = list(self._find_sites())
        if len(self.sites) > MAX_SITES:
            raise ValueError(f"the reference has {len(self.sites)} sites, above {MAX_SITES}")
        self.normal = np.zeros(self._columns)
        for site in self.sites:
            if site.kind in ("path", "value"):
                self.normal[site.column] = 1.0
            elif site.kind == "part":
                self.normal[site.column : site.column + site.other[0]] = 1.0

        def run(weights: Any, params: Any, x: Any, g: Any) -> Any:
            return oracle.differentiated(lambda p, x: self._value(weights, p, x))(params, x, g)[1]

        self._run = jax.jit(run)
        self._run_all = jax.jit(jax.vmap(run, in_axes=(0, None, None, None)))

    def gradients(self, weights: Any, inputs: Any, g: Any) -> list[Any]:
        """Return the cotangents of the floating leaves for one vector of weights."""
        with self._oracle.jax.enable_x64(True):
            return [np.asarray(leaf) for leaf in self._run(weights, *inputs, g)]

    def weights(self, changes: dict[Site, float]) -> Any:
        """Return the weights for paths scaled, or for other wrong derivatives in their place."""
        weights = self.normal.copy()
        for site, scale in changes.items():
            if site.kind in ("path", "value"):
                weights[site.column] = scale
            elif site.kind == "part":
                size, index, keep = site.other
                weights[site.column : site.column + size] = 1 - keep
                weights[site.column + index] = keep
            else:
                weights[site.path_column], weights[site.column] = 0.0, 1.0
        return weights

    def altered(self, inputs: Any, g: Any) -> Iterator[tuple[Site, list[Any]]]:
        """Yield each site with the cotangents that come of it: of a path stopped, or changed."""
        vectors = [self.weights({site: 0.0}) for site in self.sites]
        vectors += [self.normal] * (-len(vectors) % CHUNK)
        with self._oracle.jax.enable_x64(True):
            for start in range(0, len(vectors), CHUNK):
                found = self._run_all(np.stack(vectors[start : start + CHUNK]), *inputs, g)
                leaves = [np.asarray(leaf) for leaf in found]
                for row, site in enumerate(self.sites[start : start + CHUNK]):
                    yield site, [leaf[row] for leaf in leaves]

    def _find_sites(self) -> Iterator[Site]:
        rich = len(self._steps) <= RICH_STEPS
        before: list[Any] = [v for v in self._closed.jaxpr.invars if is_floating(v)]
        for step in self._steps:
            for operand, variable in enumerate(step.inputs):
                if (step.tag, operand) in self._by_operand or not has_path(step, variable):
                    continue
                found = self._by_operand[step.tag, operand] = []
                path = self._columns
                for kind, other in kinds(step, operand, variable, before if rich else None):
                    site = Site(
                        step.tag, step.name, operand, kind, step.line, self._columns, path, other
                    )
                    self._columns += 1
                    found.append(site)
                    yield site
                if rich and step.name in SUMMED:
                    yield from self._parts(step, operand, variable.aval.shape)
            if step.bound is not None:
                continue
            before += [v for v in step.outputs if is_floating(v)]
            if rich and is_floating(step.outputs[0]) and (step.tag, -1) not in self._by_operand:
                column = self._columns
                site = Site(step.tag, step.name, -1, "value", step.line, column, column)
                self._by_operand[step.tag, -1] = [site]
                self._columns += 1
                yield site

    def _parts(self, step: Step, operand: int, shape: tuple[int, ...]) -> Iterator[Site]:
        """Yield the parts of the path through an operand: one index of an axis, or the others."""
        self._axes[step.tag, operand] = []
        for axis, size in enumerate(shape):
            if 1 < size <= PARTS:
                column = self._columns
                self._axes[step.tag, operand].append((axis, size, column))
                self._columns += size
                for index, keep in itertools.product(range(size), (1, 0)):
                    part = (size, index, keep)
                    yield Site(
                        step.tag, step.name, operand, "part", step.line, column, column, part
                    )

    def _value(self, weights: Any, params: Any, x: Any) -> Any:
        """Run the steps, each with its derivative as the weights say."""
        jax = self._oracle.jax
        values = dict(zip(map(id, self._closed.jaxpr.constvars), self._closed.consts, strict=True))
        leaves = jax.tree.leaves((params, x))
        values |= dict(zip(map(id, self._closed.jaxpr.invars), leaves, strict=True))

        def read(variable: Any) -> Any:
            return variable.val if is_constant(variable) else values[id(variable)]

        for step in self._steps:
            if step.bound is not None:
                outputs = [read(source) for source in step.bound]
                values |= dict(zip(map(id, step.outputs), outputs, strict=True))
                continue
            operands = [read(variable) for variable in step.inputs]
            gated, extra = list(operands), []
            for i, operand in enumerate(operands):
                for site in self._by_operand.get((step.tag, i), ()):
                    stopped = jax.lax.stop_gradient(operand)
                    change = operand - stopped
                    if site.kind == "path":
                        for axis, size, column in self._axes.get((step.tag, i), ()):
                            mask = weights[column : column + size]
                            shape = [size if a == axis else 1 for a in range(change.ndim)]
                            change = change * mask.reshape(shape)
                        gated[i] = stopped + weights[site.column] * change
                        continue
                    at = site.other
                    if site.kind == "elsewhere" and at is not None:
                        at = read(at)
                    if "at" in step.params:  # a whole function: its own input is what changes
                        source = read(step.params["at"])
                        operands, change = [source], source - jax.lax.stop_gradient(source)
                    wrong = WRONG[site.kind](jax, step, operands, i, change, at)
                    extra.append(weights[site.column] * wrong)
            outputs = step.apply(gated)
            if extra:
                outputs = [sum(extra, start=outputs[0]), *outputs[1:]]
            for site in self._by_operand.get((step.tag, -1), ()):
                outputs = [weights[site.column] * outputs[0], *outputs[1:]]
            values |= dict(zip(map(id, step.outputs), outputs, strict=True))
        return jax.tree.unflatten(self._output, [read(v) for v in self._closed.jaxpr.outvars])
