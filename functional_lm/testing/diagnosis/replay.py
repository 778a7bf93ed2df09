"""Replay the oracle with one step of the reference differentiated wrongly, and see what matches.

The reference is traced to its single operations. Every floating operand of every operation is a
site at which a hand-written backward may go wrong. With v the operand, s(v) = stop_gradient(v) and
f the operation,

    f(…, s(v) + c·(v − s(v)), …) + Σₘ wₘ·aₘ(v − s(v))

has the value of f whatever c and w are, but another derivative: c = 0 stops the path through this
operand, another c scales it, and each aₘ is a derivative that people write instead of f's:

    unmasked, factor   aₘ(d) = d                  a mask, a factor or a slope is left out
    output for input   aₘ(d) = f'(f(v))·d         the slope at f(v) where that at v is needed
    input for output   aₘ(d) = h(v)·d             with f' = h(f(v)) known by its value, as for tanh
    not transposed     aₘ(d) = d·Wᵀ in forward, so that g meets W where it should meet Wᵀ

The replays of all sites are one compiled function of (c, w).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..oracle import JaxOracle

MAX_STEPS = 160
"""Of a reference; of a longer one only the paths are stopped and scaled."""

MAX_SITES = 1500

_CALLS = {"jaxpr", "call_jaxpr", "fun_jaxpr"}
_OPAQUE = {"scan", "while", "cond"}


@dataclasses.dataclass(frozen=True)
class Site:
    """One operand of one operation, and one way to differentiate it wrongly."""

    position: int  # of the operation, counted from the start
    operation: str
    operand: int
    others: tuple[str, ...]  # the other operands, as far as they have names
    kind: str  # path, factor, unmasked, output for input, input for output, not transposed
    line: str  # of the reference's source, or empty
    column: int  # in the vector of weights


class Replays:
    """All replays of a reference at inputs of one structure."""

    def __init__(self, oracle: JaxOracle, inputs: Any) -> None:
        """Trace the reference.

        Raises:
            ValueError: for a reference of too many steps.
        """
        self._oracle = oracle
        jax = oracle.jax
        with jax.enable_x64(True):
            closed = jax.make_jaxpr(oracle.function())(*inputs)
        self._steps = list(_inlined(jax, closed.jaxpr, closed.consts))
        self._closed = closed
        self.sites: list[Site] = []
        self._columns: dict[tuple[int, int, str], int] = {}
        rich = len(self._steps) <= MAX_STEPS
        for position, step in enumerate(self._steps):
            for operand, variable in enumerate(step.inputs):
                for kind in _kinds(jax, step, operand, variable, rich):
                    column = len(self.sites)
                    self._columns[position, operand, kind] = column
                    others = _names_of_others(step, operand)
                    site = Site(position, step.name, operand, others, kind, step.line, column)
                    self.sites.append(site)
        if len(self.sites) > MAX_SITES:
            raise ValueError(f"the reference has {len(self.sites)} sites, above {MAX_SITES}")
        self.normal = np.array([float(site.kind == "path") for site in self.sites])

        def run(weights: Any, params: Any, x: Any, g: Any) -> Any:
            differentiated = oracle.differentiated(lambda p, x: self._value(weights, p, x))
            return differentiated(params, x, g)[1]

        self._run = jax.jit(run)
        self._run_all = jax.jit(jax.vmap(run, in_axes=(0, None, None, None)))

    def gradients(self, weights: Any, inputs: Any, g: Any) -> list[Any]:
        """Return the cotangents of the floating leaves for one vector of weights."""
        with self._oracle.jax.enable_x64(True):
            return [np.asarray(leaf) for leaf in self._run(weights, *inputs, g)]

    def altered(self, inputs: Any, g: Any) -> Iterator[tuple[Site, list[Any]]]:
        """Yield each site with the cotangents that come of its wrong derivative."""
        vectors = np.repeat(self.normal[None], len(self.sites), axis=0)
        for site in self.sites:
            vectors[site.column, self._columns[site.position, site.operand, "path"]] = 0.0
            if site.kind != "path":
                vectors[site.column, site.column] = 1.0
        chunk = 64
        padded = np.concatenate([vectors, np.repeat(self.normal[None], -len(vectors) % chunk, 0)])
        with self._oracle.jax.enable_x64(True):
            for start in range(0, len(padded), chunk):
                found = self._run_all(padded[start : start + chunk], *inputs, g)
                leaves = [np.asarray(leaf) for leaf in found]
                for row, site in enumerate(self.sites[start : start + chunk]):
                    yield site, [leaf[row] for leaf in leaves]

    def _value(self, weights: Any, params: Any, x: Any) -> Any:
        """Run the steps, each with its derivative as the weights say."""
        jax = self._oracle.jax
        leaves = jax.tree.leaves((params, x))
        values: dict[int, Any] = dict(
            zip(map(id, self._closed.jaxpr.invars), leaves, strict=True)
        )
        values |= dict(zip(map(id, self._closed.jaxpr.constvars), self._closed.consts, strict=True))

        def read(variable: Any) -> Any:
            return variable.val if hasattr(variable, "val") else values[id(variable)]

        for position, step in enumerate(self._steps):
            if step.bound is not None:  # a renaming, not a computation
                for variable, source in zip(step.outputs, step.bound, strict=True):
                    values[id(variable)] = read(source)
                continue
            operands = [read(variable) for variable in step.inputs]
            gated, extra = list(operands), 0.0
            for i, operand in enumerate(operands):
                if (position, i, "path") not in self._columns:
                    continue
                stopped = jax.lax.stop_gradient(operand)
                change = operand - stopped
                gated[i] = stopped + weights[self._columns[position, i, "path"]] * change
                for kind, wrong in _WRONG.items():
                    if (position, i, kind) in self._columns:
                        weight = weights[self._columns[position, i, kind]]
                        extra = extra + weight * wrong(jax, step, operands, i, change)
            outputs = step.apply(gated)
            if not isinstance(extra, float):
                outputs = [outputs[0] + extra, *outputs[1:]]
            values |= dict(zip(map(id, step.outputs), outputs, strict=True))
        outputs = [read(variable) for variable in self._closed.jaxpr.outvars]
        structure = jax.tree.structure(
            jax.eval_shape(self._oracle.function(), params, x)
        )
        return jax.tree.unflatten(structure, outputs)


@dataclasses.dataclass
class _Step:
    """One operation, or (with ``bound``) outputs that are other names of inputs."""

    name: str
    inputs: list[Any]
    outputs: list[Any]
    apply: Callable[[list[Any]], list[Any]]
    line: str
    bound: list[Any] | None = None
    params: dict[str, Any] = dataclasses.field(default_factory=dict)


def _inlined(jax: Any, jaxpr: Any, consts: Any) -> Iterator[_Step]:
    """Yield the operations in order, those of inner functions in place of their call."""
    for eqn in jaxpr.eqns:
        inner = next((eqn.params[n] for n in _CALLS if n in eqn.params), None)
        if inner is None or eqn.primitive.name in _OPAQUE:
            yield _Step(
                eqn.primitive.name,
                list(eqn.invars),
                list(eqn.outvars),
                _applier(eqn),
                _line_of(jax, eqn),
                params=eqn.params,
            )
            continue
        body, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        # Two calls may share one body: its variables are made anew for each.
        fresh: dict[int, Any] = {}
        literals = [_Value(value) for value in constants]
        sources = [*literals, *eqn.invars]
        yield _renaming([*body.constvars, *body.invars], sources, fresh)
        for step in _inlined(jax, body, constants):
            if not step.line:
                step.line = _line_of(jax, eqn)
            step.inputs = [_rename(v, fresh) for v in step.inputs]
            step.outputs = [_rename(v, fresh) for v in step.outputs]
            if step.bound is not None:
                step.bound = [_rename(v, fresh) for v in step.bound]
            yield step
        yield _renaming(list(eqn.outvars), [_rename(v, fresh) for v in body.outvars], None)


class _Value:
    """A constant, which reads like a literal of JAX."""

    def __init__(self, val: Any) -> None:
        self.val = val


class _Name:
    """A variable of an inlined body."""

    def __init__(self, aval: Any) -> None:
        self.aval = aval


def _rename(variable: Any, fresh: dict[int, Any] | None) -> Any:
    if fresh is None or hasattr(variable, "val"):
        return variable
    if id(variable) not in fresh:
        fresh[id(variable)] = _Name(getattr(variable, "aval", None))
    return fresh[id(variable)]


def _renaming(outputs: list[Any], sources: list[Any], fresh: dict[int, Any] | None) -> _Step:
    outputs = [_rename(v, fresh) for v in outputs]
    return _Step("rename", [], outputs, lambda values: values, "", bound=sources)


def _applier(eqn: Any) -> Callable[[list[Any]], list[Any]]:
    def apply(values: list[Any]) -> list[Any]:
        bound = eqn.primitive.get_bind_params(eqn.params)
        functions, params = ((), bound) if isinstance(bound, dict) else bound
        result = eqn.primitive.bind(*functions, *values, **params)
        return list(result) if eqn.primitive.multiple_results else [result]

    return apply


def _line_of(jax: Any, eqn: Any) -> str:
    """Return the line of source that made an operation, if it is the user's."""
    try:
        import linecache

        from jax.extend import source_info_util

        file, number, *_ = source_info_util.summarize(eqn.source_info).split(" ")[0].split(":")
        return linecache.getline(file, int(number)).strip()
    except Exception:  # no more than a hint, from an interface that may change
        return ""


def _is_floating(variable: Any) -> bool:
    aval = getattr(variable, "aval", None)
    return aval is not None and np.issubdtype(getattr(aval, "dtype", np.int32), np.floating)


_ELEMENTWISE_SLOPES: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda v: 1 - v * v,
    "logistic": lambda v: v * (1 - v),
    "exp": lambda v: v,
    "sqrt": lambda v: 0.5 / v,
    "rsqrt": lambda v: -0.5 * v * v * v,
}
"""Slopes in terms of the output, f' = h(f(v)); here with the input in its place."""

_UNARY = {*_ELEMENTWISE_SLOPES, "log", "log1p", "sin", "cos", "erf", "square", "integer_pow"}


def _kinds(jax: Any, step: _Step, operand: int, variable: Any, rich: bool) -> Iterator[str]:
    """Yield the ways in which the derivative for an operand may go wrong."""
    if step.bound is not None or hasattr(variable, "val") or not _is_floating(variable):
        return
    if not _is_floating(step.outputs[0]) or step.name == "stop_gradient":
        return
    yield "path"
    if not rich:
        return
    same = variable.aval.shape == step.outputs[0].aval.shape
    if same and step.name in ("select_n", "max", "min", "clamp"):
        yield "unmasked"
    if same and (step.name in ("mul", "div") or step.name in _UNARY):
        yield "factor"
    if step.name in _UNARY and step.name not in ("rsqrt", "sqrt", "log"):
        yield "output for input"
    if step.name in _ELEMENTWISE_SLOPES:
        yield "input for output"
    if step.name == "dot_general" and _square(step, operand):
        yield "not transposed"


def _square(step: _Step, operand: int) -> bool:
    """Tell whether the other operand's contracted and free axis are one each and of one size."""
    (contracted, batched) = step.params["dimension_numbers"]
    other = 1 - operand
    shape = step.inputs[other].aval.shape
    free = [a for a in range(len(shape)) if a not in contracted[other] and a not in batched[other]]
    one = len(contracted[other]) == 1 and len(free) == 1
    return one and shape[contracted[other][0]] == shape[free[0]]


def _plain_change(jax: Any, step: _Step, operands: Any, i: int, change: Any) -> Any:
    return change


def _at_output(jax: Any, step: _Step, operands: Any, i: int, change: Any) -> Any:
    value = jax.lax.stop_gradient(operands[i])
    function = lambda v: step.apply([v])[0]  # noqa: E731
    return jax.jvp(function, (function(value),), (change,))[1]


def _by_input(jax: Any, step: _Step, operands: Any, i: int, change: Any) -> Any:
    return _ELEMENTWISE_SLOPES[step.name](jax.lax.stop_gradient(operands[i])) * change


def _not_transposed(jax: Any, step: _Step, operands: Any, i: int, change: Any) -> Any:
    (contracted, batched) = step.params["dimension_numbers"]
    other = jax.lax.stop_gradient(operands[1 - i])
    (axis,) = contracted[1 - i]
    (free,) = (a for a in range(other.ndim) if a != axis and a not in batched[1 - i])
    both = [change, jax.numpy.swapaxes(other, axis, free)]
    return step.apply(both if i == 0 else both[::-1])[0]


_WRONG: dict[str, Callable[..., Any]] = {
    "unmasked": _plain_change,
    "factor": _plain_change,
    "output for input": _at_output,
    "input for output": _by_input,
    "not transposed": _not_transposed,
}


def _names_of_others(step: _Step, operand: int) -> tuple[str, ...]:
    return tuple(
        f"{v.val:g}" if np.ndim(v.val) == 0 else "a constant"
        for i, v in enumerate(step.inputs)
        if i != operand and hasattr(v, "val") and np.issubdtype(np.asarray(v.val).dtype, np.number)
    )
