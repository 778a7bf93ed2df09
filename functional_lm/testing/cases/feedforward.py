"""Inputs for activations and gates."""

from typing import Any

import numpy as np

from .draws import Cases, Draws, Inputs, Layers, Maker, entrywise, entrywise_cases

__all__ = ["LAYERS"]


def _silu_cases(draw: Draws, make: Maker) -> Cases:
    return entrywise_cases(draw, make) | {"no axes": ({}, np.asarray(draw.normal()), {})}


def _gelu_cases(draw: Draws, make: Maker) -> Cases:
    return {
        f"{label}, {form}": (params, x, {"approximate": form == "tanh"})
        for form in ("tanh", "exact")
        for label, (params, x, _) in _silu_cases(draw, make).items()
    }


def _swiglu(draw: Draws, _: Any, leading: Any, F: int) -> Inputs:
    return {}, draw.normal(*leading, 2 * F), {}


def _swiglu_cases(draw: Draws, make: Maker) -> Cases:
    return entrywise_cases(draw, make) | {"F=1": make((3,), 1)}


LAYERS: Layers = {
    "gelu": ("D", entrywise, _gelu_cases),
    "silu": ("D", entrywise, _silu_cases),
    "swiglu": ("F", _swiglu, _swiglu_cases),
}
