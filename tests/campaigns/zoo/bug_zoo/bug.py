"""What a bug of the zoo consists of, and how it is planted."""

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np


class Layer:
    """A layer of the zoo: a namespace of functions, which get no ``self``."""

    def __init_subclass__(cls) -> None:
        for name, value in list(vars(cls).items()):
            if isinstance(value, FunctionType):
                setattr(cls, name, staticmethod(value))


class Bug(NamedTuple):
    """A layer with one mistake, and what a good diagnosis says about it."""

    name: str  # a short sentence, unique
    layer: Any  # the faulty layer
    right: Any  # the same layer without the mistake
    params: Any
    x: Any
    keywords: dict[str, Any]
    reference: Any  # what both are checked against
    leaves: tuple[str, ...]  # those that come out wrong; none where only the conduct is at fault
    cause: str  # a key of functional_lm.testing.CAUSES
    says: tuple[str, ...] = ()  # words that the diagnosis has to contain


def plant_in(
    zoo: list[Bug],
    name: str,
    right: Any,
    params: Any,
    x: Any,
    *,
    cause: str,
    leaves: str = "",
    says: tuple[str, ...] = (),
    forward: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that puts a faulty ``vjp`` into the zoo.

    Args:
        zoo: the list that the bug is added to.
        name: of the bug.
        right: the layer that the ``vjp`` belongs to.
        params: its parameters.
        x: its input.
        cause: a key of ``CAUSES``.
        leaves: those that come out wrong, with spaces between them.
        says: words that the diagnosis has to contain.
        forward: another forward than that of the right layer.
        **keywords: the layer's own.
    """

    def decorate(vjp: Callable[..., Any]) -> Callable[..., Any]:
        layer = SimpleNamespace(
            __name__=right.__name__,
            forward=forward or right.forward,
            vjp=vjp,
            SHARES_MEMORY=getattr(right, "SHARES_MEMORY", ""),
        )
        wrong = tuple(leaves.split())
        bug = Bug(name, layer, right, params, x, keywords, right.reference, wrong, cause, says)
        zoo.append(bug)
        return vjp

    return decorate


def draw(seed: int, *shape: int, scale: float = 1.0) -> Any:
    """Return float64 from N(0, scale²)."""
    return scale * np.random.default_rng(seed).standard_normal(shape)


def rows(x: Any) -> Any:
    """Return x as a matrix: all axes but the last are one."""
    return x.reshape(-1, x.shape[-1])


def sigmoid(x: Any) -> Any:
    """Return 1/(1 + e⁻ˣ), where e⁻ˣ may be infinite."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def probabilities(x: Any) -> Any:
    """Return the softmax of each row."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_vjp(probs: Any, g: Any) -> Any:
    """Return the cotangent of the rows whose softmax is ``probs``."""
    return probs * (g - (g * probs).sum(axis=-1, keepdims=True))


class Pair(NamedTuple):
    """Two arrays as the input of a layer."""

    a: Any
    b: Any
