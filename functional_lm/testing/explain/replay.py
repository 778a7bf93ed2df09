"""Replay the oracle with one step of the reference differentiated wrongly, and see what matches.

The reference is traced to its single operations. Every floating operand of every operation is a
site at which a hand-written backward may go wrong. With v the operand, s(v) = stop_gradient(v) and
f the operation,

    f(…, s(v) + c·(v − s(v)), …) + Σₘ wₘ·aₘ(v − s(v))

has the value of f whatever c and w are, but another derivative: c = 0 stops the path through this
operand, another c scales it, and each aₘ(d) is what people write instead of f's derivative:

    unmasked         d                 a mask is left out
    factor           d                 the other factor, or the slope of f, is left out
    elsewhere        f'(u)·d           the slope at another value u, such as the output
    input            h(v)·d            f' = h(f(v)) is known by its value, but given v
    not transposed   d·Wᵀ              forward has W, so that g meets W where it needs Wᵀ
    reshaped         d reshaped        where forward exchanges axes, or the other way round

Where a sum runs over an axis, the path is also kept at one of its indices only, or at all others.

One more wrong derivative is that of another function, in which the value of an operation is
multiplied by c: a vjp that computes that value anew, and otherwise than forward did.

The replays of all sites are one compiled function of (c, w).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..oracle import SOON, JaxOracle
from .steps import Step, is_constant, is_floating, steps_of

__all__ = ["Replays", "Site", "Wrong"]

Wrong = Callable[[Any, list[Any], Callable[[Any], Any]], Any]
"""``(change of the operand, all operands, read(variable)) -> change of the result``."""


@dataclasses.dataclass(frozen=True)
class Site:
    """One operand of one operation, and one way to differentiate it wrongly."""

    tag: Any  # of the operation, in the order of the trace
    operation: str
    operand: int
    kind: str  # path, value, part, or one of the table above
    line: str  # of the reference's source, or empty
    column: int  # in the vector of weights
    path_column: int  # of the path through the same operand
    wrong: Wrong | None = None
    part: tuple[int, int, int] = (0, 0, 0)  # size of the axis, index, whether it is what is kept


_BY_OUTPUT: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda v: 1 - v * v,
    "logistic": lambda v: v * (1 - v),
    "exp": lambda v: v,
    "sqrt": lambda v: 0.5 / v,
    "rsqrt": lambda v: -0.5 * v * v * v,
}
"""Slopes that are known by the output, f' = h(f(v))."""

_CURVED = {*_BY_OUTPUT, "log", "log1p", "expm1", "sin", "cos", "erf", "square", "integer_pow"}

SUMMED = ("dot_general", "reduce_sum", "reshape", "mul")
"""Operations in or before which a sum over an axis is likely."""

ELSEWHERE = 12
"""So many other values are tried for the slope of one operation."""


def has_path(step: Step, variable: Any) -> bool:
    """Tell whether a gradient flows through an operand of a step."""
    if step.bound is not None or step.tag is None or step.name == "stop_gradient":
        return False
    return not is_constant(variable) and is_floating(variable) and is_floating(step.outputs[0])


def wrong_derivatives(
    step: Step, i: int, variable: Any, before: list[Any]
) -> Iterator[tuple[str, Wrong]]:
    """Yield the ways in which the derivative for the i-th operand may go wrong."""
    import jax
    import jax.numpy as jnp

    shape, result = variable.aval.shape, step.outputs[0].aval.shape
    fits = shape in ((), result)
    if fits and step.name in ("select_n", "max", "min", "clamp"):
        yield "unmasked", lambda change, *_: change
    if step.name == "cumsum" and "axis" in step.params:  # one with a causal mask
        yield (
            "unmasked",
            lambda change, *_: jnp.broadcast_to(
                change.sum(axis=step.params["axis"], keepdims=True), change.shape
            ),
        )
    curved = step.name in _CURVED or "at" in step.params
    constant = any(is_constant(v) and np.size(v.val) == 1 for v in step.inputs)
    if fits and (curved or (step.name in ("mul", "div") and not constant)):
        yield "factor", lambda change, *_: change
    if curved:
        apply = step.params.get("function", step.apply)

        def elsewhere(other: Any) -> Wrong:
            def wrong(change: Any, operands: Any, read: Any) -> Any:
                at = apply([operands[i]])[0] if other is None else read(other)
                at = jax.lax.stop_gradient(at)
                slope = jax.jvp(lambda v: apply([v])[0], (at,), (jnp.ones_like(at),))[1]
                return jnp.where(jnp.isfinite(slope), slope, 0.0) * change

            return wrong

        own = step.params.get("at", variable)
        others = [v for v in before if v is not own and v.aval.shape == shape]
        for other in [*others[-ELSEWHERE:], None]:  # None is the output
            yield "elsewhere", elsewhere(other)
    if step.name in _BY_OUTPUT:

        def by_input(change: Any, operands: Any, read: Any) -> Any:
            slope = _BY_OUTPUT[step.name](jax.lax.stop_gradient(operands[i]))
            return jnp.where(jnp.isfinite(slope), slope, 0.0) * change

        yield "input", by_input
    if step.name == "transpose":
        yield "reshaped", lambda change, *_: change.reshape(result)
    if step.name == "reshape":
        for a, b in itertools.combinations(range(len(shape)), 2):
            yield "reshaped", lambda change, *_, a=a, b=b: change.swapaxes(a, b).reshape(result)
        for a, b in itertools.combinations(range(len(result)), 2):
            exchanged = list(result)
            exchanged[a], exchanged[b] = result[b], result[a]
            yield (
                "reshaped",
                lambda change, *_, to=exchanged, a=a, b=b: change.reshape(to).swapaxes(a, b),
            )
    if step.name == "dot_general":
        yield from _not_transposed(step, i, result)


def _not_transposed(step: Step, i: int, result: tuple[int, ...]) -> Iterator[tuple[str, Wrong]]:
    contracted, batched = (axes[1 - i] for axes in step.params["dimension_numbers"])
    shape = step.inputs[1 - i].aval.shape
    free = [a for a in range(len(shape)) if a not in contracted and a not in batched]

    def product(change: Any, other: Any) -> Any:
        return step.apply([change, other] if i == 0 else [other, change])[0]

    if len(contracted) == len(free) == 1 and shape[contracted[0]] == shape[free[0]]:
        axes = contracted[0], free[0]
        yield (
            "not transposed",
            lambda change, operands, _: product(change, operands[1 - i].swapaxes(*axes)),
        )
    if len(result) > 1 and result[-1] == result[-2]:
        yield (
            "not transposed",
            lambda change, operands, _: product(change, operands[1 - i]).swapaxes(-1, -2),
        )


RICH_STEPS = 200
"""Of a longer reference only the paths are stopped and scaled."""

MAX_SITES = 2000

PARTS = 8
"""Axes up to this size are tried index by index, kept alone or left out."""

CHUNK = 64


class Replays:
    """All replays of a reference at inputs of one structure."""

    def __init__(self, oracle: JaxOracle, inputs: Any, g: Any) -> None:
        """Trace the reference and compile its replays.

        Raises:
            ValueError: for a reference of too many operations.
        """
        self._oracle = oracle
        jax = oracle.jax
        with oracle.tracing("float64"):
            self._closed = jax.make_jaxpr(oracle.function())(*inputs)
        self._output = jax.tree.structure(g)
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
                self.normal[site.column : site.column + site.part[0]] = 1.0

        def run(weights: Any, params: Any, x: Any, g: Any) -> Any:
            return oracle.differentiated(lambda p, x: self._value(weights, p, x))(params, x, g)[1]

        rows = np.tile(self.normal, (CHUNK, 1))
        all_rows = jax.vmap(run, in_axes=(0, None, None, None))
        self._run = oracle.compiled(all_rows, rows, *inputs, g, dtype="float64", options=SOON)

    def gradients(self, weights: list[Any], inputs: Any, g: Any) -> Iterator[list[Any]]:
        """Yield the cotangents of the floating leaves for each vector of weights."""
        for start in range(0, len(weights), CHUNK):
            rows = np.stack(weights[start : start + CHUNK])
            padded = np.pad(rows, ((0, CHUNK - len(rows)), (0, 0)), "edge")
            with self._oracle.jax.enable_x64(True):
                leaves = [np.asarray(leaf) for leaf in self._run(padded, *inputs, g)]
            yield from ([leaf[row] for leaf in leaves] for row in range(len(rows)))

    def weights(self, changes: dict[Site, float]) -> Any:
        """Return the weights for paths scaled, or for other wrong derivatives in their place."""
        weights = self.normal.copy()
        for site, scale in changes.items():
            if site.kind in ("path", "value"):
                weights[site.column] = scale
            elif site.kind == "part":
                size, index, keep = site.part
                weights[site.column : site.column + size] = 1 - keep
                weights[site.column + index] = keep
            else:
                weights[site.path_column], weights[site.column] = 0.0, 1.0
        return weights

    def operands(self, site: Site, inputs: Any) -> list[Any]:
        """Return the values that the operation of a site combines."""
        values = dict(zip(map(id, self._closed.jaxpr.constvars), self._closed.consts, strict=True))
        leaves = self._oracle.jax.tree.leaves(inputs)
        values |= dict(zip(map(id, self._closed.jaxpr.invars), leaves, strict=True))

        def read(variable: Any) -> Any:
            return variable.val if is_constant(variable) else values[id(variable)]

        with self._oracle.jax.enable_x64(True):
            for step in self._steps:
                operands = [read(v) for v in step.inputs]
                if step.tag == site.tag:
                    return [np.asarray(a) for a in operands]
                outputs = [read(v) for v in step.bound or ()] or step.apply(operands)
                values |= dict(zip(map(id, step.outputs), outputs, strict=True))
        raise LookupError(site)

    def _find_sites(self) -> Iterator[Site]:
        rich = len(self._steps) <= RICH_STEPS
        before: list[Any] = [v for v in self._closed.jaxpr.invars if is_floating(v)]
        for step in self._steps:
            for i, variable in enumerate(step.inputs):
                if (step.tag, i) in self._by_operand or not has_path(step, variable):
                    continue
                path = self._columns
                found = self._by_operand[step.tag, i] = [self._site(step, i, "path", path)]
                for kind, wrong in wrong_derivatives(step, i, variable, before) if rich else ():
                    found.append(self._site(step, i, kind, path, wrong=wrong))
                yield from found
                if rich and step.name in SUMMED:
                    yield from self._parts(step, i, variable.aval.shape)
            if step.bound is not None:
                continue
            before += [v for v in step.outputs if is_floating(v)]
            if rich and is_floating(step.outputs[0]) and (step.tag, -1) not in self._by_operand:
                site = self._site(step, -1, "value", self._columns)
                self._by_operand[step.tag, -1] = [site]
                yield site

    def _site(self, step: Step, i: int, kind: str, path: int, **fields: Any) -> Site:
        """Return a site whose weight is a new column."""
        self._columns += 1
        return Site(step.tag, step.name, i, kind, step.line, self._columns - 1, path, **fields)

    def _parts(self, step: Step, i: int, shape: tuple[int, ...]) -> Iterator[Site]:
        """Yield the parts of the path through an operand: one index of an axis, or the others."""
        self._axes[step.tag, i] = []
        for axis, size in enumerate(shape):
            if 1 < size <= PARTS:
                first = self._site(step, i, "part", self._columns)
                self._columns += size - 1
                self._axes[step.tag, i].append((axis, size, first.column))
                for index, keep in itertools.product(range(size), (1, 0)):
                    yield dataclasses.replace(first, part=(size, index, keep))

    def _value(self, weights: Any, params: Any, x: Any) -> Any:
        """Run the steps, each with its derivative as the weights say."""
        jax = self._oracle.jax
        values = dict(zip(map(id, self._closed.jaxpr.constvars), self._closed.consts, strict=True))
        leaves = jax.tree.leaves((params, x))
        values |= dict(zip(map(id, self._closed.jaxpr.invars), leaves, strict=True))

        def read(variable: Any) -> Any:
            return variable.val if is_constant(variable) else values[id(variable)]

        for step in self._steps:
            outputs = [read(source) for source in step.bound or ()]
            if step.bound is None:
                outputs = self._apply(step, [read(v) for v in step.inputs], weights, read)
            values |= dict(zip(map(id, step.outputs), outputs, strict=True))
        return jax.tree.unflatten(self._output, [read(v) for v in self._closed.jaxpr.outvars])

    def _apply(self, step: Step, operands: list[Any], weights: Any, read: Any) -> list[Any]:
        """Return the outputs of a step, with the derivative that the weights say."""
        stop = self._oracle.jax.lax.stop_gradient
        gated, extra = list(operands), []
        for i, operand in enumerate(operands):
            for site in self._by_operand.get((step.tag, i), ()):
                change = operand - stop(operand)
                if site.wrong is None:
                    for axis, size, column in self._axes.get((step.tag, i), ()):
                        shape = [size if a == axis else 1 for a in range(change.ndim)]
                        change = change * weights[column : column + size].reshape(shape)
                    gated[i] = stop(operand) + weights[site.column] * change
                    continue
                given = operands
                if "at" in step.params:  # a whole function: its own input is what changes
                    source = read(step.params["at"])
                    given, change = [source], source - stop(source)
                wrong = site.wrong(change, [stop(v) for v in given], read)
                extra.append(weights[site.column] * wrong)
        first, *others = step.apply(gated)
        first = sum(extra, start=first)
        for site in self._by_operand.get((step.tag, -1), ()):
            first = weights[site.column] * first
        return [first, *others]
