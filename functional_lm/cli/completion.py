"""``functional-lm completion``."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from ..models import DEFAULT, find
from .fields import Flag, flags_of
from .flags import Argument
from .main import COMMANDS, command_named
from .output import print

BASH = """\
_functional_lm() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} words=
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{choices}
    *) [[ $cur == -* ]] && case ${{COMP_WORDS[1]}} in
{flags}
    esac ;;
  esac
  [[ $COMP_CWORD == 1 ]] && words="{commands}"
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _functional_lm functional-lm"""
"""Where nothing is offered, bash completes files."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """Print a script that completes commands, flags and their choices in a shell.

    In bash, add to ~/.bashrc: source <(functional-lm completion bash). In zsh, add the same with
    zsh to ~/.zshrc. In fish, write it to ~/.config/fish/completions/functional-lm.fish.

    Attributes:
        shell: the shell: bash, zsh or fish.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], Argument("SHELL")]

    def run(self) -> int:
        """Print the script."""
        architecture = find(DEFAULT)
        flags = {name: flags_of(command_named(name), architecture) for name in COMMANDS}
        flags["help"] = []
        choices = {("help", "help"): list(COMMANDS)}
        for name, own in flags.items():
            for flag in own:
                if flag.choices:
                    choices[name, name if flag.positional else flag.spelling] = list(flag.choices)
        if self.shell == "fish":
            print("\n".join(f"complete -c functional-lm {line}" for line in _fish(flags, choices)))
            return 0
        if self.shell == "zsh":
            print("(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }")
            print("autoload -Uz bashcompinit && bashcompinit")
        after = [f'    "{" ".join(key)}") words="{" ".join(v)}" ;;' for key, v in choices.items()]
        options = [
            f'      {name}) words="{" ".join(map(_typed, own))}" ;;' for name, own in flags.items()
        ]
        print(
            BASH.format(
                choices="\n".join(after), flags="\n".join(options), commands=" ".join(flags)
            )
        )
        return 0


def _typed(flag: Flag) -> str:
    """Return a flag as one types it to change its default."""
    if flag.positional:
        return ""
    return flag.spelling.replace("--", "--no-", 1) if flag.default is True else flag.spelling


def _fish(flags: dict[str, list[Flag]], choices: dict[tuple[str, str], list[str]]) -> Iterator[str]:
    """Yield a rule for each command, flag and argument."""
    for name, own in flags.items():
        about = COMMANDS.get(name, "Print what a command takes.")
        yield f"-n __fish_use_subcommand -f -a {name} -d '{about}'"
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        if (name, name) in choices:
            yield f"{seen} -f -a '{' '.join(choices[name, name])}'"
        for flag in own:
            if not flag.positional:
                about = flag.about.partition(". ")[0].removesuffix(".").replace("'", "\\'")
                about = f"do not {about}" if _typed(flag).startswith("--no-") else about
                value = "" if flag.kind is bool else " -r"
                if flag.choices:
                    value = f" -x -a '{' '.join(flag.choices)}'"
                yield f"{seen} -l {_typed(flag)[2:]}{value} -d '{about}'"
