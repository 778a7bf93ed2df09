"""``functional-lm completion``."""

import dataclasses
from typing import Annotated, Literal

import tyro

from ..contract import expect_choice
from .main import COMMANDS, command_named
from .parser import completion


@dataclasses.dataclass(frozen=True)
class Completion:
    """Print a script that completes commands and flags in a shell.

    In bash, add this line to ~/.bashrc: source <(functional-lm completion bash)

    Attributes:
        shell: bash, zsh or fish.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]

    def __post_init__(self) -> None:
        expect_choice("shell", self.shell, ["bash", "zsh", "fish"])

    def run(self) -> int:
        """Print the script."""
        print(completion({name: command_named(name) for name in COMMANDS}, self.shell))
        return 0
