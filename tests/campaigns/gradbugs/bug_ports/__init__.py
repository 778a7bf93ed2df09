"""Wrong backward passes that public repositories had, ported to NumPy in our own words.

Each class is one bug: its docstring says what was wrong, ``thread`` where it was reported.
Layers with their own file are grouped by kind; `negatives` are right backward passes that
somebody took for wrong. `third` holds ports that came later, with negatives of their own, and
`fourth` and `fifth` those that came after them.
"""

from . import (  # noqa: F401
    attention,
    convolutions,
    entrywise,
    fifth,
    fourth,
    indices,
    losses,
    maps,
    norms,
    recurrent,
    third,
)
from .negatives import NEGATIVES
from .port import ALL, Inputs, Port, half_of, layer_of, reference_of

NEGATIVES = [*NEGATIVES, *third.NEGATIVES]

__all__ = [
    "ALL",
    "NEGATIVES",
    "Inputs",
    "Port",
    "half_of",
    "layer_of",
    "reference_of",
]
