"""Other people's code: their functions as layers, and layers inside their programs.

from_pair, from_object, from_torch, from_jax    return a layer
as_jax, as_torch                                return a function with the layer's own backward
"""

from .frameworks import as_jax, as_torch, from_jax, from_object, from_pair, from_torch

__all__ = ["as_jax", "as_torch", "from_jax", "from_object", "from_pair", "from_torch"]
