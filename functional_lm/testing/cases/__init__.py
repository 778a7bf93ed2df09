"""The inputs at which each layer, loss and model is checked.

Sizes are distinct primes or awkward, never all powers of two, so that a transposed or broadcast
axis cannot hide; scales are random, so that a factor that happens to be one cannot either.
"""

import zlib
from typing import Any, NamedTuple

from ...contract import Tree, expect_int
from ..inputs import did_you_mean, keywords_of
from . import (
    adapters,
    basic,
    feedforward,
    losses,
    models,
    norms,
    recurrent,
    routing,
    softmax_attention,
)
from .draws import Draws, Maker

__all__ = ["DEFAULTS", "LETTERS", "Case", "case_at", "cases_of"]


class Case(NamedTuple):
    """Inputs, in float64, at which a layer is checked."""

    layer: str  # its name, such as "rms_norm"
    label: str  # what is particular about the inputs
    params: Tree
    x: Any
    keywords: dict[str, Any]

    def __str__(self) -> str:
        return self.label


def cases_of(name: str, module: Any) -> list[Case]:
    """Return the inputs at which the layer of that name is checked; the same every time."""
    draw = Draws((zlib.crc32(name.encode()),))
    _, function, cases = _LAYERS[name]
    inputs = cases(draw, Maker(draw, module, function))
    return [Case(name, label, *arrays) for label, arrays in inputs.items()]


def case_at(
    name: str, module: Any, sizes: dict[str, int], settings: dict[str, Any], seed: int = 0
) -> Case:
    """Draw parameters, input and side inputs of a layer at given sizes.

    Args:
        name: the layer.
        module: the layer itself, for its ``init`` and types.
        sizes: by letter; those not given have their default.
        settings: keyword-only inputs, such as ``causal`` or ``eps``, beside those that are drawn.
        seed: of the draws.

    Raises:
        ValueError: for a letter that the layer does not have, a size below zero, or a keyword
            that its forward does not name.
    """
    letters = LETTERS[name]
    for letter, size in sizes.items():
        if letter not in letters:
            meant = NAMES.get(letter.lower().replace("_", ""), letter)
            near = [known for known in letters if known.partition("_")[0] == meant]
            hint = (
                f"; did you mean {' or '.join(near)}?"
                if near
                else did_you_mean(meant, letters, "use those")
            )
            raise ValueError(f"{name} has the sizes {', '.join(letters)}: got {letter}{hint}")
        expect_int(f"size {letter}", size, minimum=0)
    make = Maker(Draws((seed,)), module, _LAYERS[name][1])
    known = [*(keywords_of(module) or []), *make.seen]
    for setting in settings:
        if setting not in known:
            has = f"the keywords {', '.join(known)}" if known else "no keywords"
            hint = did_you_mean(setting, known)
            raise ValueError(f"{name} has {has}: got {setting}{hint}")
    full = {letter: sizes.get(letter, DEFAULTS[letter]) for letter in letters}
    if "S" in full and "S" not in sizes:
        full["S"] = full["T"]
    if "G" in full and "G" not in sizes and full["H"] % full["G"]:
        full["G"] = full["H"]
    if "G" in full and (full["G"] < 1 or full["H"] % full["G"]):
        fits = [n for n in range(1, full["H"] + 1) if full["H"] % n == 0]
        raise ValueError(
            f"the {full['G']} key/value heads (G) must divide the {full['H']} query heads (H): "
            f"make G one of {', '.join(map(str, fits))}, or change H"
        )
    label = " ".join(f"{letter}={size}" for letter, size in full.items())
    B, T, *others = full.values()
    return Case(name, label, *make((B, T), *others, **settings))


DEFAULTS = {"B": 2, "T": 5, "S": 5, "D": 24, "D_in": 5, "D_out": 7}
DEFAULTS |= {"H": 6, "G": 2, "K": 4, "F": 7, "V": 11, "L": 2, "E": 5, "R": 3, "P": 3}
"""The size of each letter that is not given; L is the number of blocks."""

NAMES = {"batch": "B", "seqlen": "T", "dmodel": "D", "din": "D_in", "dout": "D_out"}
NAMES |= {"nheads": "H", "nkvheads": "G", "headsize": "K", "headdim": "K", "dff": "F"}
NAMES |= {"vocabsize": "V", "nlayers": "L", "nexperts": "E"}
"""What else the letters are called, for errors."""

_FILES = (
    *(basic, norms, feedforward, softmax_attention, recurrent, routing, adapters),
    *(losses, models),
)
_LAYERS = {name: inputs for file in _FILES for name, inputs in file.LAYERS.items()}
LETTERS = {name: ["B", "T", *letters.split()] for name, (letters, _, _) in _LAYERS.items()}
"""The letters that a layer's inputs have."""
