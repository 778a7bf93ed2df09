"""Where a backward may go wrong, and how: one operand of one operation, one wrong derivative.

With d the change of an operand v of the operation f, people write instead of f's derivative:

    unmasked         d                 a mask is left out
    factor           d                 the other factor, or the slope of f, is left out
    elsewhere        f'(u)·d           the slope at another value u, such as the output
    input            h(v)·d            f' = h(f(v)) is known by its value, but given v
    not transposed   d·Wᵀ              forward has W, so that g meets W where it needs Wᵀ
    reshaped         d reshaped        where forward exchanges axes, or the other way round
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .steps import Step, is_constant, is_floating

ELSEWHERE = 12
"""So many other values are tried for the slope of one operation."""


@dataclasses.dataclass(frozen=True)
class Site:
    """One operand of one operation, and one way to differentiate it wrongly."""

    tag: Any  # of the operation, in the order of the trace
    operation: str
    operand: int
    kind: str  # path, value, part, or one of those above
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
    if fits and (
        step.name in _CURVED
        or "at" in step.params
        or (step.name in ("mul", "div") and not constant)
    ):
        yield "factor", None
    if step.name in _CURVED or "at" in step.params:
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
