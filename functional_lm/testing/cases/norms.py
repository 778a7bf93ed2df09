"""Inputs for the norms."""

from typing import Any

from .draws import ROWS, Cases, Draws, Inputs, Layers, Maker, entrywise

__all__ = ["LAYERS"]


def _rms_norm(draw: Draws, _: Any, leading: Any, D: int) -> Inputs:
    return {"scale": draw.normal(D)}, draw.normal(*leading, D), {}


def _rms_norm_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(ROWS, 13),
        "large eps": make((2, 3), 7, eps=0.5),
        "small x": make((2, 3), 7, scale=1e-4),
        "large x": make((2, 3), 7, scale=1e4),
        "many rows": make((1031,), 7),
        "D=1": make((3,), 1, eps=0.1),
    }


def _rms_norm_offset_cases(draw: Draws, make: Maker) -> Cases:
    return _rms_norm_cases(draw, make) | {"offset": make((2, 3), 7, offset=1.0)}


def _l2_norm_cases(draw: Draws, make: Maker) -> Cases:
    return {**make.each(ROWS, 13), "large eps": make((2, 3), 7, eps=0.5)}


def _layer_norm(draw: Draws, _: Any, leading: Any, D: int) -> Inputs:
    return {"scale": draw.normal(D), "bias": draw.normal(D)}, draw.normal(*leading, D), {}


def _layer_norm_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **_rms_norm_cases(draw, make),
        "no bias": _rms_norm(draw, None, (2, 3), 7),
        "far from zero": make((2, 3), 7, far=10.0),
    }


LAYERS: Layers = {
    "l2_norm": ("D", entrywise, _l2_norm_cases),
    "layer_norm": ("D", _layer_norm, _layer_norm_cases),
    "rms_norm": ("D", _rms_norm, _rms_norm_offset_cases),
}
