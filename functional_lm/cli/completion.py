"""``functional-lm completion``."""

import contextlib
import dataclasses
import io
import warnings
from typing import Annotated, Literal

import tyro

from ..models import DEFAULT, find
from .flags import Argument
from .main import COMMANDS, command_named
from .output import print
from .parser import flags_of, registry


@dataclasses.dataclass(frozen=True)
class Completion:
    """Print a script that completes commands and flags in a shell.

    In bash, add this line to ~/.bashrc: source <(functional-lm completion bash)

    Attributes:
        shell: bash, zsh or fish.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], Argument("SHELL")]

    def run(self) -> int:
        """Print the script."""
        kinds = {name: command_named(name) for name in COMMANDS}
        flags = {kind: flags_of(kind, find(DEFAULT)) for kind in kinds.values()}
        script = io.StringIO()
        with (
            contextlib.redirect_stdout(script),
            contextlib.suppress(SystemExit),
            warnings.catch_warnings(action="ignore"),
        ):
            tyro.extras.subcommand_cli_from_dict(
                kinds,
                prog="functional-lm",
                args=["--tyro-print-completion", self.shell],
                registry=registry(flags, strict=True),
            )
        print(script.getvalue())
        return 0
