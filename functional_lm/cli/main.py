"""The command ``functional-lm``."""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..speed import runtime

COMMANDS = {
    "train": "Train a language model on a text.",
    "generate": "Sample text from a trained model.",
    "evaluate": "Measure a trained model on a text.",
    "plot": "Draw the curves of runs.",
    "report": "Write a page about a run.",
    "diagnose": "Say what is wrong with a training run.",
    "find-lr": "Suggest a learning rate from one short run.",
    "sweep": "Train with several learning rates and compare.",
    "check": "Certify every gradient against JAX.",
    "golden": "Write what a kernel must compute, for tests elsewhere.",
    "info": "Say what is installed, and what a model costs.",
}
"""Each is a class of its name, in the module of its name: find-lr is FindLr in find_lr."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 1: it went wrong on the way. 2: bad input. 130: Ctrl-C. What the user can mend is said
    in at most three lines on stderr, without a traceback.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else _complain("functional-lm: a command is required, see above")
    name, *rest = arguments
    if name == "--version":
        print(f"functional-lm {__version__}")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        return _complain(f"functional-lm: unknown command {name!r}: the commands are {known}")
    runtime.tune()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 shows a mark instead
            stream.reconfigure(errors="replace")
    try:
        return _run(_parse(name, rest))
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if name not in ("train", "sweep", "find-lr"):
            return 0
        _complain(f"functional-lm {name}: stopped, since nobody reads what it says; use a file")
        return 1
    except (ArithmeticError, MemoryError) as error:
        _complain(f"functional-lm {name}: {_one_line(error) or type(error).__name__}")
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _complain(f"functional-lm {name}: {_one_line(error)}")
    except KeyboardInterrupt:
        _complain(f"functional-lm {name}: interrupted")
        return 130


def _run(command: Any) -> int:
    import numpy as np

    # A run that diverges overflows before its gradient is found not to be finite: one message.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return command.run()


def _parse(name: str, arguments: list[str]) -> Any:
    """Return the command with its settings; flags given explicitly override presets and files."""
    import tyro

    module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
    command = getattr(module, name.title().replace("-", ""))
    defaults = command.defaults(arguments) if hasattr(command, "defaults") else None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                command,
                args=arguments,
                default=defaults if defaults is not None else tyro.MISSING_NONPROP,
                prog=f"functional-lm {name}",
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as error:
        if not error.code:
            raise
        raise ValueError(
            f"{_without_frame(said.getvalue())}; see functional-lm {name} --help"
        ) from None


def _without_frame(message: str) -> str:
    """Return the first paragraph of a framed message as one line."""
    lines = [line.strip("│╭╮╰╯ \n") for line in message.splitlines()[1:]]
    paragraph = []
    for line in lines:
        if line and not line.strip("─"):
            break
        paragraph.append(line)
    return " ".join(filter(None, paragraph)).rstrip(".")


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: functional-lm COMMAND [--help] [...]",
            "",
            "A transformer language model in NumPy with every gradient written by hand.",
            "",
            *lines,
            "",
            "  --version  Print the version.",
        ]
    )
