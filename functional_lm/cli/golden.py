"""``functional-lm golden``."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

from ..contract import expect_fields, expect_int
from ..files import write_atomic
from ..testing import golden
from ..testing.cases import DEFAULTS, LETTERS
from .flags import Argument
from .output import print


@dataclasses.dataclass(frozen=True)
class Golden:
    """Write what a kernel must compute: inputs, residuals, results and limits, for tests elsewhere.

    Attributes:
        layer: such as rms_norm or attention.
        shape: sizes by letter, such as B=2 T=128 D=64; the others have a default.
        set: keywords of the layer, such as causal=true or eps=1e-5.
        out: the safetensors file to write.
        seed: of all draws.
    """

    layer: Annotated[str, Argument("LAYER")]
    out: Path
    shape: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        expect_fields(self, (expect_int, "seed", {"minimum": 0}))

    def run(self) -> int:
        """Write the file and say what is in it."""
        sizes = {letter: _size(letter, text) for letter, text in map(_split, self.shape)}
        settings = {name: _value(text) for name, text in map(_split, self.set)}
        if not self.out.parent.is_dir():
            raise FileNotFoundError(f"the folder of --out must exist: {self.out.parent} does not")
        made = golden(self.layer, sizes, settings, seed=self.seed)
        write_atomic(self.out, made.to_bytes())
        width = max(map(len, made.tensors))
        for name, tensor in made.tensors.items():
            print(f"{name:{width}}  {tensor.dtype}  {' × '.join(map(str, tensor.shape)) or '–'}")
        print(f"\n{self.layer} at {made.metadata['sizes']}, written to {self.out}")
        if not self.shape:
            letters = " ".join(f"{x}={DEFAULTS[x]}" for x in LETTERS[self.layer])
            print(f"sizes of your own: --shape {letters}")
        return 0


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"give NAME=VALUE, such as B=2: got {text!r}")
    return name, value


def _size(letter: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a size must be an integer: got {letter}={text}") from None


def _value(text: str) -> Any:
    """Read a number, true or false; anything else is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text
