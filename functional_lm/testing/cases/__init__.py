"""The inputs at which each layer, loss and model is checked.

Sizes are distinct primes or awkward, never all powers of two, so that a transposed or broadcast
axis cannot hide; scales are random, so that a factor that happens to be one cannot either.
"""

import zlib
from typing import Any, NamedTuple

from ...contract import Tree
from . import attention, losses, models, pointwise
from .draws import Draws

__all__ = ["Case", "Draws", "cases_of"]


class Case(NamedTuple):
    """Inputs, in float64, at which a layer is checked."""

    layer: str  # its name, such as "rms_norm"
    label: str  # what is particular about the inputs
    params: Tree
    x: Any
    keywords: dict[str, Any]

    def __str__(self) -> str:
        """Return the label, for the id of a test."""
        return self.label


def cases_of(name: str, module: Any) -> list[Case]:
    """Return the inputs at which the layer of that name is checked; the same every time.

    Args:
        name: the layer.
        module: the layer itself, for its ``init`` and types.
    """
    draw = Draws((zlib.crc32(name.encode()),))
    return [Case(name, *case) for case in _CASES[name](draw, module)]


_CASES = pointwise.CASES | attention.CASES | losses.CASES | models.CASES
