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


def _relu_cases(draw: Draws, make: Maker) -> Cases:
    zeros: Inputs = ({}, np.array([0.0, -0.0, 1e-30, -1e-30, 2.0]), {})
    return _silu_cases(draw, make) | {"zeros": zeros}


def _gated(draw: Draws, m: Any, leading: Any, F: int) -> Inputs:
    from ...layers import gelu

    params, x, _ = _swiglu(draw, m, leading, F)
    return params, x, {"activation": gelu}


def _gated_cases(draw: Draws, make: Maker) -> Cases:
    from ...compose import bind
    from ...layers import gelu, relu_squared

    return {
        **_swiglu_cases(draw, make),
        "exact": make((2, 3), 7, activation=bind(gelu, approximate=False)),
        "squares": make((2, 3), 5, activation=relu_squared),
    }


def _swiglu(draw: Draws, _: Any, leading: Any, F: int) -> Inputs:
    return {}, draw.normal(*leading, 2 * F), {}


def _swiglu_cases(draw: Draws, make: Maker) -> Cases:
    return entrywise_cases(draw, make) | {"F=1": make((3,), 1)}


LAYERS: Layers = {
    "gated": ("F", _gated, _gated_cases),
    "gelu": ("D", entrywise, _gelu_cases),
    "relu": ("D", entrywise, _relu_cases),
    "relu_squared": ("D", entrywise, _relu_cases),
    "sigmoid": ("D", entrywise, _silu_cases),
    "silu": ("D", entrywise, _silu_cases),
    "swiglu": ("F", _swiglu, _swiglu_cases),
}
