"""``functional-lm golden``."""

import dataclasses
from pathlib import Path
from typing import Annotated

from ..contract import expect_fields, expect_int
from ..files import write_atomic
from ..testing import golden
from ..testing.cases import DEFAULTS, LETTERS
from .check import progress_bar
from .flags import Argument, setting, split_setting
from .output import print

__all__ = ["Golden"]


@dataclasses.dataclass(frozen=True)
class Golden:
    """Write inputs, residuals, results and limits for the tests of a kernel elsewhere.

    Attributes:
        layer: a layer, such as rms_norm or attention.
        shape: sizes by letter, such as B=2 T=128 D=64; the others have a default.
        set: keywords of the layer, such as causal=true or eps=1e-5.
        out: the safetensors file to write.
        seed: the seed of all draws.
        overwrite: replace the file if it exists.
    """

    layer: Annotated[str, Argument("LAYER")]
    out: Path
    shape: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        expect_fields(self, (expect_int, "seed", {"minimum": 0}))

    def run(self) -> int:
        """Write the file and say what is in it."""
        sizes = {letter: _size(letter, text) for letter, text in map(split_setting, self.shape)}
        settings = {name: setting(text) for name, text in map(split_setting, self.set)}
        if not self.out.parent.is_dir():
            raise FileNotFoundError(f"the folder of --out must exist: {self.out.parent} does not")
        if self.out.exists() and not self.overwrite:
            raise FileExistsError(f"--out must name a new file: {self.out} exists; add --overwrite")
        with progress_bar() as bar:
            task = bar.add_task(self.layer, total=1.0)
            made = golden(
                self.layer,
                sizes,
                settings,
                seed=self.seed,
                progress=lambda share: bar.update(task, completed=share),
            )
        write_atomic(self.out, made.to_bytes())
        width = max(map(len, made.tensors))
        for name, tensor in made.tensors.items():
            print(f"{name:{width}}  {tensor.dtype}  {' × '.join(map(str, tensor.shape)) or '–'}")
        print(f"\n{self.layer} at {made.metadata['sizes']}, written to {self.out}")
        if not self.shape:
            letters = " ".join(f"{x}={DEFAULTS[x]}" for x in LETTERS[self.layer])
            print(f"set other sizes with --shape {letters}")
        return 0


def _size(letter: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a size must be an integer: got {letter}={text}") from None
