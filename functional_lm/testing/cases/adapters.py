"""Inputs for the layers of `functional_lm.layers.adapters`."""

from .draws import Layers

__all__ = ["LAYERS"]

LAYERS: Layers = {}
