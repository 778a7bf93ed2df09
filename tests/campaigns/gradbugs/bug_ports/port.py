"""What one bug of the corpus consists of, and the helpers that the ports share."""

import hashlib
import types
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from functional_lm import pytree
from functional_lm.testing import CAUSES

ALL: list[type["Port"]] = []
"""Every bug, in the order of the files."""


class Inputs(NamedTuple):
    """What a layer is checked at."""

    params: Any
    x: Any
    keywords: dict[str, Any] = {}
    cotangent: Any = None  # what the loss sends back; any if None


class Port:
    """A wrong backward pass that a public repository had, in our own words.

    The docstring of a subclass says what was wrong. Its functions get no ``self``:

    - ``value(xp, params, x, **keywords) -> y`` in NumPy or `jax.numpy`, as ``xp`` says;
    - ``backward(params, x, g, wrong, **keywords) -> (d_params, d_x)`` in NumPy, with the mistake
      or without;
    - ``wrong_value``, where the forward is wrong: what stands in its place.

    Attributes:
        thread: owner/repository and the number of the issue or pull request.
        causes: the label of each wrong leaf; "" stands for the whole layer.
        near: labels that are no mistake either, but say less.
        fixture: the condition that hid the mistake, and who names it.
        awkward: inputs that show it.
        friendly: inputs that hide it, or None where nothing is known to have.
        keeps_output: whether ``backward`` gets the value as ``y``.
    """

    thread: str
    causes: dict[str, str]
    near: tuple[str, ...] = ()
    fixture = "The thread names none."
    awkward: Inputs
    friendly: Inputs | None = None
    keeps_output = False

    def __init_subclass__(cls) -> None:
        for name in ("value", "wrong_value", "backward"):
            if name in vars(cls):
                setattr(cls, name, staticmethod(vars(cls)[name]))
        unknown = {*cls.causes.values(), *cls.near} - {*CAUSES}
        if unknown or not cls.__doc__:
            raise TypeError(f"{cls.__name__} needs a docstring and known causes: got {unknown}")
        ALL.append(cls)


def half_of(port: type[Port]) -> str:
    """Return the folder of a later set, or the half of the others that the thread's name says."""
    folder = port.__module__.split(".")[-2]
    if folder in ("third", "fourth", "fifth"):
        return folder
    return "second" if hashlib.sha256(port.thread.encode()).digest()[0] % 2 else "first"


def layer_of(port: type[Port], *, wrong: bool) -> Any:
    """Return a layer with ``forward`` and ``vjp``; results are fresh arrays in the dtype of x."""

    value = getattr(port, "wrong_value", port.value) if wrong else port.value

    def forward(params: Any, x: Any, **keywords: Any) -> Any:
        dtype = pytree.leaves((params, x))[0].dtype
        y = value(np, params, x, **keywords)
        kept = {"y": _fresh(y, dtype)} if port.keeps_output else {}
        return _fresh(y, dtype), (params, x, keywords | kept)

    def vjp(residuals: Any, g: Any) -> Any:
        params, x, keywords = residuals
        cotangents = port.backward(params, x, g, wrong, **keywords)
        return _fresh(cotangents, pytree.leaves((params, x))[0].dtype)

    return types.SimpleNamespace(forward=forward, vjp=vjp, __name__=port.__name__)


def reference_of(port: type[Port]) -> Any:
    """Return the value as a function that JAX differentiates."""
    return lambda params, x, **keywords: port.value(jnp, params, x, **keywords)


def _fresh(tree: Any, dtype: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _fresh(child, dtype) for name, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_fresh(child, dtype) for child in tree)
    return None if tree is None else np.array(tree, dtype)


def draw(seed: int, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Any:
    """Return float64 from N(shift, scale²)."""
    return shift + scale * np.random.default_rng(seed).standard_normal(shape)


def in_memory_order(g: Any) -> Any:
    """Return what a kernel sees that takes the strides of g for those of a fresh array."""
    return g.ravel(order="K").reshape(g.shape)


def softmax(xp: Any, scores: Any) -> Any:
    """Return the softmax over the last axis."""
    weights = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def d_softmax(probs: Any, d_probs: Any) -> Any:
    """Return the cotangent of the scores."""
    return probs * (d_probs - (probs * d_probs).sum(axis=-1, keepdims=True))


def log_sum_exp(xp: Any, scores: Any) -> Any:
    """Return log Σ exp over the last axis."""
    top = scores.max(axis=-1, keepdims=True)
    return (top + xp.log(xp.exp(scores - top).sum(axis=-1, keepdims=True)))[..., 0]
