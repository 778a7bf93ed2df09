"""``functional-lm info``."""

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated, Generic

import numpy as np
import tyro

from .. import __version__, pytree
from ..contract import expect_fields, expect_int
from ..models.transformer import Config
from ..runs import open_run
from ..speed import runtime
from ..training import costs
from . import architectures
from .flags import C, Selection

_MEMORY = {
    "allocator": "keeps freed memory",
    "": "returns freed memory",
}


@dataclasses.dataclass(frozen=True)
class Info(Generic[C]):
    """Say what is installed, and what a model costs for each token.

    Attributes:
        model: the model.
        sizes: the model's settings.
        folder: the folder of a run, to describe its model instead.
        vocab_size: the number of tokens that there are.
        seq_len: tokens of context. Not given: the most that the model takes.
    """

    model: Selection
    sizes: C
    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    vocab_size: int = 65
    seq_len: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        expect_fields(self, (expect_int, "vocab_size seq_len", {}))

    def run(self) -> int:
        """Print both."""
        report = runtime.report()
        print(f"functional-lm  {__version__}")
        print(f"Python         {platform.python_version()} on {platform.platform()}")
        print(f"NumPy          {np.__version__}")
        print(f"BLAS           {report.blas}, {_kernel(report)}")
        print(f"threads        {report.blas_threads} in a matrix product, {report.cores} cores")
        print(f"allocator      {_MEMORY[report.memory]}")
        print(f"JAX            {_version('jax')}")
        print()
        if self.folder is None:
            name = f"{self.model.preset or self.model.model}, {self.vocab_size} tokens"
            config = Config(self.vocab_size, **architectures.given(self.sizes))
        else:
            run = open_run(self.folder)
            name, config = str(self.folder), run.objective.config
            if "model_file" in run.settings:
                origin = run.settings["model_file"]["from"]
                print(f"model          {name}: {pytree.count(run.params):,} parameters")
                print(f"from           {origin}")
                return 0
        self._print_costs(name, config)
        return 0

    def _print_costs(self, name: str, config: Config) -> None:
        seq_len = config.max_seq_len if self.seq_len is None else self.seq_len
        if seq_len > config.max_seq_len:
            config = dataclasses.replace(config, max_seq_len=seq_len)
        cost = costs(config, seq_len)
        sizes = f"{config.n_layers} blocks, width {config.d_model}, {_heads(config)}"
        training = f"{cost.training_flops / 1e6:,.2f} MFLOP"
        inference = f"{cost.inference_flops / 1e6:,.2f} MFLOP"
        print(f"model          {name}: {cost.parameters:,} parameters")
        print(f"sizes          {sizes}")
        print(f"context        {seq_len} tokens; for each token:")
        print(f"  training     {training}, {cost.training_bytes:,} bytes of residuals")
        print(f"  inference    {inference}, {cost.inference_bytes:,} bytes of keys and values")


def _heads(config: Config) -> str:
    groups = "" if config.n_kv_heads == config.n_heads else f" ({config.n_kv_heads} key/value)"
    return f"{config.n_heads} heads{groups}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed; the checks against it need the extra jax"


def _kernel(report: runtime.Report) -> str:
    """Name the kernel, and who chose it."""
    if not report.kernel:
        return "which does not name its kernel"
    if not report.pinned_by:
        return f"kernel {report.kernel}, chosen for this processor"
    return f"kernel {report.kernel}, held by {report.pinned_by}; unset it to compare"
