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

from ..oracle import JaxOracle
from .steps import Step, is_constant, is_floating, steps_of

ELSEWHERE = 12
"""So many other values are tried for the slope of one operation."""


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
    other: Any = None  # the variable at which to take the slope, or the axes to exchange


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


def has_path(step: Step, variable: Any) -> bool:
    """Tell whether a gradient flows through an operand of a step."""
    if step.bound is not None or step.tag is None or step.name == "stop_gradient":
        return False
    return not is_constant(variable) and is_floating(variable) and is_floating(step.outputs[0])


def kinds(
    step: Step, operand: int, variable: Any, before: list[Any] | None
) -> Iterator[tuple[str, Any]]:
    """Yield the ways in which the derivative for an operand may go wrong."""
    yield "path", None
    if before is None:
        return
    shape, result = variable.aval.shape, step.outputs[0].aval.shape
    fits = shape in ((), result)
    constant = any(is_constant(v) and np.size(v.val) == 1 for v in step.inputs)
    if fits and step.name in ("select_n", "max", "min", "clamp"):
        yield "unmasked", None
    curved = step.name in _CURVED or "at" in step.params
    if fits and (curved or (step.name in ("mul", "div") and not constant)):
        yield "factor", None
    if curved:
        own = step.params.get("at", variable)
        others = [v for v in before if v is not own and v.aval.shape == shape]
        for other in others[-ELSEWHERE:]:
            yield "elsewhere", other
        yield "elsewhere", None  # the output
    if step.name in _BY_OUTPUT:
        yield "input", None
    if step.name == "cumsum" and "axis" in step.params:
        yield "unmasked", "all"
    if step.name == "transpose":
        yield "reshaped", None
    if step.name == "reshape":
        for pair in itertools.combinations(range(len(shape)), 2):
            yield "reshaped", ("before", *pair)
        for pair in itertools.combinations(range(len(result)), 2):
            yield "reshaped", ("after", *pair)
    if step.name == "dot_general":
        if _square(step, operand):
            yield "not transposed", None
        if len(result) > 1 and result[-1] == result[-2]:
            yield "not transposed", "result"


def _square(step: Step, operand: int) -> bool:
    """Tell whether the other operand's contracted and free axis are one each and of one size."""
    (contracted, batched) = step.params["dimension_numbers"]
    other = 1 - operand
    shape = step.inputs[other].aval.shape
    free = [a for a in range(len(shape)) if a not in contracted[other] and a not in batched[other]]
    one = len(contracted[other]) == 1 and len(free) == 1
    return one and shape[contracted[other][0]] == shape[free[0]]


def _same(jax: Any, step: Step, operands: Any, i: int, change: Any, at: Any) -> Any:
    if at == "all":  # a running sum is one with a causal mask
        total = change.sum(axis=step.params["axis"], keepdims=True)
        return jax.numpy.broadcast_to(total, change.shape)
    return change


def _elsewhere(jax: Any, step: Step, operands: Any, i: int, change: Any, at: Any) -> Any:
    apply = step.params.get("function", step.apply)

    def function(v: Any) -> Any:
        return apply([v])[0]

    at = jax.lax.stop_gradient(function(operands[i]) if at is None else at)
    slope = jax.jvp(function, (at,), (jax.numpy.ones_like(at),))[1]
    return jax.numpy.where(jax.numpy.isfinite(slope), slope, 0.0) * change


def _by_input(jax: Any, step: Step, operands: Any, i: int, change: Any, at: Any) -> Any:
    slope = _BY_OUTPUT[step.name](jax.lax.stop_gradient(operands[i]))
    return jax.numpy.where(jax.numpy.isfinite(slope), slope, 0.0) * change


def _not_transposed(jax: Any, step: Step, operands: Any, i: int, change: Any, at: Any) -> Any:
    (contracted, batched) = step.params["dimension_numbers"]
    other = jax.lax.stop_gradient(operands[1 - i])
    if at == "result":
        both = [change, other] if i == 0 else [other, change]
        return jax.numpy.swapaxes(step.apply(both)[0], -1, -2)
    (axis,) = contracted[1 - i]
    (free,) = (a for a in range(other.ndim) if a != axis and a not in batched[1 - i])
    both = [change, jax.numpy.swapaxes(other, axis, free)]
    return step.apply(both if i == 0 else both[::-1])[0]


def _reshaped(jax: Any, step: Step, operands: Any, i: int, change: Any, at: Any) -> Any:
    shape = step.outputs[0].aval.shape
    if at is None:
        return change.reshape(shape)
    where, a, b = at
    if where == "before":
        return jax.numpy.swapaxes(change, a, b).reshape(shape)
    exchanged = list(shape)
    exchanged[a], exchanged[b] = exchanged[b], exchanged[a]
    return jax.numpy.swapaxes(change.reshape(exchanged), a, b)


WRONG: dict[str, Callable[..., Any]] = {
    "unmasked": _same,
    "factor": _same,
    "elsewhere": _elsewhere,
    "input": _by_input,
    "not transposed": _not_transposed,
    "reshaped": _reshaped,
}


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
                self.normal[site.column : site.column + site.other[0]] = 1.0

        def run(weights: Any, params: Any, x: Any, g: Any) -> Any:
            return oracle.differentiated(lambda p, x: self._value(weights, p, x))(params, x, g)[1]

        rows = np.tile(self.normal, (CHUNK, 1))
        all_rows = jax.vmap(run, in_axes=(0, None, None, None))
        self._run = oracle.compiled(all_rows, rows, *inputs, g, dtype="float64")

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
                size, index, keep = site.other
                weights[site.column : site.column + size] = 1 - keep
                weights[site.column + index] = keep
            else:
                weights[site.path_column], weights[site.column] = 0.0, 1.0
        return weights

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
                    found.append(self._site(step, operand, kind, path, other))
                    self._columns += 1
                yield from found
                if rich and step.name in SUMMED:
                    yield from self._parts(step, operand, variable.aval.shape)
            if step.bound is not None:
                continue
            before += [v for v in step.outputs if is_floating(v)]
            if rich and is_floating(step.outputs[0]) and (step.tag, -1) not in self._by_operand:
                site = self._site(step, -1, "value", self._columns)
                self._by_operand[step.tag, -1] = [site]
                self._columns += 1
                yield site

    def _site(self, step: Step, operand: int, kind: str, path: int, other: Any = None) -> Site:
        """Return a site whose weight is the next column."""
        return Site(step.tag, step.name, operand, kind, step.line, self._columns, path, other)

    def _parts(self, step: Step, operand: int, shape: tuple[int, ...]) -> Iterator[Site]:
        """Yield the parts of the path through an operand: one index of an axis, or the others."""
        self._axes[step.tag, operand] = []
        for axis, size in enumerate(shape):
            if 1 < size <= PARTS:
                self._axes[step.tag, operand].append((axis, size, self._columns))
                for index, keep in itertools.product(range(size), (1, 0)):
                    yield self._site(step, operand, "part", self._columns, (size, index, keep))
                self._columns += size

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
