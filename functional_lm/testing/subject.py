"""The code under test: whatever it raises is a finding, not a crash of the checker."""

from typing import Any

import numpy as np

from ..contract import Differentiable, Tree


class BrokenLayer(Exception):
    """A breach of the contract after which there is nothing left to compare."""


class Subject:
    """A layer with its keywords, run with floating-point faults as errors."""

    def __init__(self, layer: Differentiable, keywords: dict[str, Any]) -> None:
        """Take the layer; nothing is run yet."""
        self.layer = layer
        self.keywords = keywords

    def forward(self, inputs: tuple[Tree, Any], keywords: dict[str, Any] | None = None) -> Any:
        """Return ``(y, residuals)``, with other keywords if given."""
        keywords = self.keywords if keywords is None else keywords
        result = _run("forward", lambda: self.layer.forward(*inputs, **keywords))
        if type(result) is not tuple or len(result) != 2:
            raise BrokenLayer(f"forward must return (y, residuals): got {describe(result)}")
        return result

    def vjp(self, residuals: Any, g: Any) -> Any:
        """Return ``(d_params, d_x)``."""
        result = _run("vjp", lambda: self.layer.vjp(residuals, g))
        if type(result) is not tuple or len(result) != 2:
            raise BrokenLayer(f"vjp must return (d_params, d_x): got {describe(result)}")
        return result

    def results(self, inputs: Any, g: Any, keywords: dict[str, Any] | None = None) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, by the names of leaves."""
        y, residuals = self.forward(inputs, keywords)
        d_params, d_x = self.vjp(residuals, g)
        return {"y": y, "params": d_params, "x": d_x}


def describe(value: Any) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()


def _run(what: str, call: Any) -> Any:
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            return call()
    except Exception as error:
        raise BrokenLayer(f"{what} raised {type(error).__name__}: {error}") from error
