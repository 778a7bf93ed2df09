"""Inputs for the layers of `functional_lm.layers.routing`."""

from .draws import Layers

__all__ = ["LAYERS"]

LAYERS: Layers = {}
