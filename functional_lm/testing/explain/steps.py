"""A traced reference as a list of single operations, those of inner functions in place."""

import dataclasses
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["Step", "is_constant", "is_floating", "steps_of"]

_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_OPAQUE = {"while", "cond"}
_UNROLLED = 32
"""Scans up to this length are unrolled, so that what is wrong in the carry can be found."""


@dataclasses.dataclass
class Step:
    """One operation; with ``bound`` no computation, but outputs that are other names of inputs."""

    name: str
    inputs: list[Any]
    outputs: list[Any]
    apply: Callable[[list[Any]], list[Any]]
    line: str = ""  # of the user's source, or empty
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    bound: list[Any] | None = None
    tag: Any = None  # the copies of one operation in an unrolled scan share it


class Name:
    """A variable of an inlined body; equal to itself only."""

    def __init__(self, aval: Any) -> None:
        self.aval = aval


def steps_of(jaxpr: Any, tag: Any = ()) -> Iterator[Step]:
    """Yield the operations of a jaxpr in order."""
    for number, eqn in enumerate(jaxpr.eqns):
        inner = next((eqn.params[name] for name in _BODIES if name in eqn.params), None)
        mark, name = (*tag, number), eqn.primitive.name
        inputs, outputs = list(eqn.invars), list(eqn.outvars)
        long = name == "scan" and eqn.params["length"] > _UNROLLED
        if inner is None or name in _OPAQUE or long:
            yield Step(name, inputs, outputs, _applier(eqn), _line_of(eqn), eqn.params, tag=mark)
        elif name == "scan":
            yield from _unrolled(eqn, inner, mark)
        else:
            yield from _call(eqn, inner, inputs, outputs, mark)


def is_constant(variable: Any) -> bool:
    """Tell whether a variable is a literal."""
    return hasattr(variable, "val")


def is_floating(variable: Any) -> bool:
    """Tell whether a variable is an array of floating numbers."""
    aval = getattr(variable, "aval", None)
    return aval is not None and np.issubdtype(getattr(aval, "dtype", np.int32), np.floating)


def _call(eqn: Any, inner: Any, inputs: list[Any], outputs: list[Any], mark: Any) -> Iterator[Step]:
    """Yield the body of a call, with variables of its own: two calls may share one body."""
    body, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
    fresh: dict[int, Any] = {}
    sources = [*(SimpleNamespace(val=value) for value in constants), *inputs]  # like literals
    yield _renaming([_rename(v, fresh) for v in (*body.constvars, *body.invars)], sources)
    for step in steps_of(body, mark):
        step.line = step.line or _line_of(eqn)
        step.inputs = [_rename(v, fresh) for v in step.inputs]
        step.outputs = [_rename(v, fresh) for v in step.outputs]
        if "at" in step.params:
            step.params = step.params | {"at": _rename(step.params["at"], fresh)}
        if step.bound is not None:
            step.bound = [_rename(v, fresh) for v in step.bound]
        yield step
    results = [_rename(v, fresh) for v in body.outvars]
    if _is_entrywise(inputs, outputs):
        # The value of the body, as one operation that has a slope as a whole.
        whole = {"function": _applier(eqn), "at": inputs[0]}
        name = str(eqn.params.get("name", eqn.primitive.name))
        yield Step(name, results, outputs, list, _line_of(eqn), whole, tag=(*mark, "whole"))
    else:
        yield _renaming(outputs, results)


def _is_entrywise(inputs: list[Any], outputs: list[Any]) -> bool:
    """Tell whether a call maps one floating array to one of its shape."""
    if not (len(inputs) == len(outputs) == 1 and is_floating(inputs[0])):
        return False
    return is_floating(outputs[0]) and inputs[0].aval.shape == outputs[0].aval.shape


def _unrolled(eqn: Any, inner: Any, mark: Any) -> Iterator[Step]:
    """Yield the body of a scan once for each turn."""
    n_constants, n_carry = eqn.params["num_consts"], eqn.params["num_carry"]
    constants = list(eqn.invars[:n_constants])
    carry = list(eqn.invars[n_constants : n_constants + n_carry])
    scanned = list(eqn.invars[n_constants + n_carry :])
    stacked: list[list[Any]] = [[] for _ in eqn.outvars[n_carry:]]
    length = eqn.params["length"]
    turns = range(length)
    body = getattr(inner, "jaxpr", inner)
    for turn in reversed(turns) if eqn.params["reverse"] else turns:
        here = [Name(None) for _ in scanned]
        for whole, part in zip(scanned, here, strict=True):
            yield Step("slice", [whole], [part], lambda values, i=turn: [values[0][i]])  # type: ignore[misc]
        outputs = [Name(v.aval) for v in body.outvars]
        yield from _call(eqn, inner, [*constants, *carry, *here], outputs, mark)
        carry = outputs[:n_carry]
        for column, output in zip(stacked, outputs[n_carry:], strict=True):
            column.append(output)
    yield _renaming(list(eqn.outvars[:n_carry]), carry)
    for column, output in zip(stacked, eqn.outvars[n_carry:], strict=True):
        order = column[::-1] if eqn.params["reverse"] else column
        yield Step("stack", order, [output], _stack)


def _stack(values: list[Any]) -> list[Any]:
    import jax.numpy as jnp

    return [jnp.stack(values)]


def _rename(variable: Any, fresh: dict[int, Any]) -> Any:
    if is_constant(variable):
        return variable
    if id(variable) not in fresh:
        # Kept beside its name, so that no other variable gets its id.
        fresh[id(variable)] = (Name(getattr(variable, "aval", None)), variable)
    return fresh[id(variable)][0]


def _renaming(outputs: list[Any], sources: list[Any]) -> Step:
    return Step("rename", [], outputs, lambda values: values, bound=sources)


def _applier(eqn: Any) -> Callable[[list[Any]], list[Any]]:
    def apply(values: list[Any]) -> list[Any]:
        bound = eqn.primitive.get_bind_params(eqn.params)
        functions, params = ((), bound) if isinstance(bound, dict) else bound
        result = eqn.primitive.bind(*functions, *values, **params)
        return list(result) if eqn.primitive.multiple_results else [result]

    return apply


def _line_of(eqn: Any) -> str:
    """Return the line of the user's source that made an operation, as far as JAX tells."""
    try:
        import linecache

        from jax.extend import source_info_util

        file, number, *_ = source_info_util.summarize(eqn.source_info).split(" ")[0].split(":")
        return linecache.getline(file, int(number)).strip()
    except Exception:  # no more than a hint, from an interface that may change
        return ""
