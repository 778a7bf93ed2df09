"""Inputs for the layers of `functional_lm.layers.recurrent`."""

from typing import Any

import numpy as np

from ...contract import WithState
from .draws import BATCHES, HEADS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]


def _causal_convolution(
    draw: Draws, _: Any, leading: Any, D: int, *, width: int = 4, bias: bool = False
) -> Inputs:
    params = {"weight": draw.normal(width, D)} | ({"bias": draw.normal(D)} if bias else {})
    return params, WithState(draw.normal(*leading, D), draw.normal(leading[0], width - 1, D)), {}


def _causal_convolution_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(BATCHES, 7),
        "bias": make((2, 11), 5, bias=True),
        "as long as the state": make((3, 2), 5, width=3),
        "wider than the text": make((2, 2), 5, width=7, bias=True),
        "one tap": make((2, 5), 3, width=1),
        "one channel": make((2, 13), 1, width=2),
        "long": make((1, 331), 3),
    }


def _selective_scan(
    draw: Draws, m: Any, leading: Any, H: int, G: int, K: int, *, N: int = 5, dt: float = 0.5
) -> Inputs:
    params = {"A_log": draw.normal(H, scale=0.5), "D": draw.normal(H)}
    steps = dt * np.exp(draw.normal(*leading, H))
    x, b, c = draw.normal(*leading, H, K), draw.normal(*leading, G, N), draw.normal(*leading, G, N)
    return params, WithState(m.Inputs(x, steps, b, c), draw.normal(leading[0], H, N, K)), {}


def _selective_scan_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(HEADS, 6, 2, 3),
        "chunks, the last one short": make((2, 11), 6, 2, 3, chunk_size=4),
        "whole chunks, H=3 G=3": make((2, 6), 3, 3, 2, chunk_size=3, N=1),
        "chunks of one": make((3, 5), 2, 1, 1, chunk_size=1),
        "strong decays": make((2, 67), 3, 1, 3, dt=20.0),
        "weak decays": make((2, 67), 3, 1, 3, dt=1e-3, chunk_size=31),
    }


LAYERS: Layers = {
    "causal_convolution": ("D", _causal_convolution, _causal_convolution_cases),
    "selective_scan": ("H G K", _selective_scan, _selective_scan_cases),
}
