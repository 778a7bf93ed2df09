"""Inputs for the layers of `functional_lm.layers.recurrent`."""

from typing import Any

from ...contract import WithState
from .draws import BATCHES, Cases, Draws, Inputs, Layers, Maker

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


LAYERS: Layers = {
    "causal_convolution": ("D", _causal_convolution, _causal_convolution_cases),
}
