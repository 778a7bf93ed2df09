"""``functional-lm info``."""

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from .. import __version__, pytree
from ..contract import expect_int
from ..models import LanguageModel, build, find
from ..runs import open_run
from ..speed import runtime
from ..training import costs

_MEMORY = {
    "allocator": "keeps freed memory",
    "pool": "returns freed memory; a pool of arrays keeps it instead",
    "": "returns freed memory",
}


@dataclasses.dataclass(frozen=True)
class Info:
    """Say what is installed, and what a model costs for each token.

    Attributes:
        folder: of a run, to describe its model. Not given: the preset.
        preset: the size of the model.
        vocab_size: of the preset.
        seq_len: tokens of context. Not given: that of the run, or 256.
    """

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    preset: Literal["tiny", "small", "medium"] = "tiny"
    vocab_size: int = 65
    seq_len: int | None = None

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
            name = f"{self.preset}, {self.vocab_size} tokens"
            model = build("llama", vocab_size=self.vocab_size, **find("llama").PRESETS[self.preset])
        else:
            run = open_run(self.folder)
            name, model = str(self.folder), run.model
            if "model_file" in run.settings:
                origin = run.settings["model_file"]["from"]
                print(f"model          {name}: {pytree.count(run.params):,} parameters")
                print(f"from           {origin}")
                return 0
        self._print_costs(name, model)
        return 0

    def _print_costs(self, name: str, model: LanguageModel) -> None:
        config = model.config
        seq_len = config.max_seq_len
        if self.seq_len is not None:
            seq_len = expect_int("seq_len", self.seq_len)
        if seq_len > config.max_seq_len:
            fields = dataclasses.asdict(config) | {"max_seq_len": seq_len}
            model = build(model.name, **fields)
        cost = costs(model, seq_len)
        sizes = f"{config.n_layers} blocks, width {config.d_model}, {_heads(config)}"
        training = f"{cost.training_flops / 1e6:,.2f} MFLOP"
        inference = f"{cost.inference_flops / 1e6:,.2f} MFLOP"
        print(f"model          {name}: {cost.parameters:,} parameters")
        print(f"sizes          {sizes}")
        print(f"context        {seq_len} tokens; for each token:")
        print(f"  training     {training}, {cost.training_bytes:,} bytes of residuals")
        print(f"  inference    {inference}, {cost.inference_bytes:,} bytes of keys and values")


def _heads(config: Any) -> str:
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
