"""Inputs for the layers of `functional_lm.layers.recurrent`."""

from .draws import Layers

__all__ = ["LAYERS"]

LAYERS: Layers = {}
