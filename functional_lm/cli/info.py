"""``functional-lm info``."""

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Generic

import numpy as np

from .. import __version__, models
from ..contract import expect_fields, expect_int
from ..runs import open_run
from ..speed import runtime
from ..training import costs
from .display import wrapped
from .flags import Argument, C, Selection, given
from .output import print
from .runs import find_run


@dataclasses.dataclass(frozen=True)
class Info(Generic[C]):
    """Say what is installed, and what a model costs for each token.

    Attributes:
        model: model.
        sizes: size and details of the model.
        folder: the folder of a run, to describe its model instead.
        vocab_size: the number of tokens that there are.
        seq_len: tokens of context. Not given: the most that the model takes.
    """

    model: Selection
    sizes: C
    folder: Annotated[Path | None, Argument("[RUN]", find_run)] = None
    vocab_size: int = 65
    seq_len: int | None = None

    def __post_init__(self) -> None:
        expect_fields(self, (expect_int, "vocab_size seq_len", {}))
        if self.folder is not None and self.sizes is not None:
            default: Any = type(self.sizes)
            selection = Selection(trust_model=self.model.trust_model)
            if (self.model, self.sizes, self.vocab_size) != (selection, default(1), 65):
                raise ValueError("a run has its own model: got RUN and settings; leave one out")

    def run(self) -> int:
        """Print both."""
        process = runtime.info()
        print(f"functional-lm  {__version__}")
        print(f"Python         {platform.python_version()} on {platform.platform()}")
        print(f"NumPy          {np.__version__}")
        print(f"BLAS           {process.blas}, {_kernel(process)}")
        print(f"threads        {process.blas_threads} in a matrix product, {process.cores} cores")
        print(f"allocator      {'keeps' if process.memory else 'returns'} freed memory")
        print(f"JAX            {_version('jax')}")
        print()
        if self.folder is None:
            name = f"{self.model.preset or self.model.model}, {self.vocab_size} tokens"
            sizes = given(self.sizes)
            model = models.build(self.model.model, vocab_size=self.vocab_size, **sizes)
        else:
            name, model = (
                str(self.folder),
                open_run(self.folder, trust_model=self.model.trust_model).model,
            )
        self._print_costs(name, model)
        return 0

    def _print_costs(self, name: str, model: models.LanguageModel) -> None:
        seq_len = model.config.max_seq_len if self.seq_len is None else self.seq_len
        if seq_len > model.config.max_seq_len:
            sizes = dataclasses.asdict(model.config) | {"max_seq_len": seq_len}
            model = models.build(model.name, **sizes)
        cost = costs(model, seq_len)
        settings = ", ".join(f"{k} {v}" for k, v in given(model.config).items())
        training = f"{cost.training_flops / 1e6:,.2f} MFLOP"
        inference = f"{cost.inference_flops / 1e6:,.2f} MFLOP"
        print(f"model          {name}: {cost.parameters:,} parameters")
        print(wrapped("settings", settings, 15))
        print(f"context        {seq_len} tokens; for each token:")
        print(f"  training     {training}, {cost.training_bytes:,} bytes of residuals")
        print(f"  inference    {inference}, {cost.inference_bytes:,} bytes of cache")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed; the checks against it need the extra jax"


def _kernel(process: runtime.RuntimeInfo) -> str:
    """Name the kernel, and who chose it."""
    if not process.kernel:
        return "which does not name its kernel"
    if not process.pinned_by:
        return f"kernel {process.kernel}, chosen for this processor"
    return f"kernel {process.kernel}, held by {process.pinned_by}; unset it to compare"
