"""``functional-lm merge``."""

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

from ..models.adapting import AdapterConfig, merge, plain
from ..runs import open_run
from ..runs.folder import new_run, save_run, table_of
from .flags import Argument
from .output import print
from .runs import RunFolder

__all__ = ["Merge"]


@dataclasses.dataclass(frozen=True)
class Merge:
    """Write a tuned model with its adapters merged into its weights, as a run of its own.

    Attributes:
        folder: the folder of a run with LoRA or DoRA.
        out: the folder to write, which must not exist.
        trust_model: run the code that comes with the run, whoever wrote it.
    """

    folder: RunFolder
    out: Annotated[Path, Argument("OUT")]
    trust_model: bool = False

    def run(self) -> int:
        """Merge the best weights."""
        run = open_run(self.folder, trust_model=self.trust_model)
        if run.model.adapted is None:
            raise ValueError(
                f"merge needs a run with adapters: {self.folder} has none; use it as is"
            )
        params = merge(run.model, run.params)
        tuning = {field.name for field in dataclasses.fields(AdapterConfig)}
        settings = {name: table_of(run.settings, name) for name in ("training", "text", "given")}
        settings["given"] = {k: v for k, v in settings["given"].items() if k not in tuning}
        with contextlib.ExitStack() as held, new_run(self.out, held) as (_, new):
            save_run(new, params, plain(run.model), run.tokenizer, settings=settings)
        print(f"saved in {self.out}: {plain(run.model).n_parameters:,} parameters")
        print(f"next        functional-lm generate {shlex.quote(str(self.out))}")
        return 0
