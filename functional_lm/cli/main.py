"""The command ``functional-lm``."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..speed import runtime
from .output import print

COMMANDS = {
    "train": "Train a language model on a text.",
    "generate": "Sample text from a trained model.",
    "evaluate": "Measure a trained model on a text.",
    "merge": "Write a tuned model with its adapters merged into its weights.",
    "plot": "Draw the curves of runs.",
    "report": "Write a page about a run.",
    "diagnose": "Say what is wrong with a training run.",
    "find-lr": "Suggest a learning rate from one short run.",
    "sweep": "Train with several values of a flag or two, and compare.",
    "tokenizer": "Train a subword tokenizer, or compare tokenizers.",
    "check": "Certify every gradient against JAX.",
    "golden": "Write what a kernel must compute, for tests elsewhere.",
    "info": "Say what is installed, and what a model costs.",
    "runs": "List the runs here.",
    "completion": "Print a script that completes commands and flags in a shell.",
}
"""Each is a class of its name, in the module of its name: find-lr is FindLr in find_lr."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 1: a failure on the way. 2: bad input. 130: Ctrl-C. What the user can fix is reported
    on stderr, a line for each fault, without a traceback.
    """
    for closed in [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]:
        # No file of a run may get the descriptor, and then what is meant for the terminal.
        setattr(sys, closed, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+"))
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    name = arguments[0] if arguments[:1] and arguments[0] in COMMANDS else ""
    program = f"functional-lm {name}".rstrip()
    if (launch := _launched(program)) is not None and launch.rank > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  the first speaks for all
        for number in (signal.SIGINT, signal.SIGTERM):  # and decides for all
            signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal cannot encode becomes an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(name, arguments[1:], program) if name else _about(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if name not in ("train", "sweep", "find-lr") or {"-h", "--help"} & set(arguments):
            return 0
        return _complain(program, "output pipe closed; redirect to a file instead", status=1)
    except (ArithmeticError, MemoryError) as error:
        return _complain(program, _one_line(error) or type(error).__name__, status=1)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _complain(program, *getattr(error, "faults", [_one_line(error)]))
    except KeyboardInterrupt:
        return _complain(program, "interrupted", status=130)
    except Exception:
        if launch is None:
            raise
        return _complain(program, traceback.format_exc(), status=1)


def _run(name: str, arguments: list[str], program: str) -> int:
    runtime.tune()  # before NumPy is imported
    import numpy as np

    if _launched(program) is not None:
        from ..speed.processes import world

        world()  # so that an error, also in the flags, ends all processes
    from .parser import parse

    kind = command_named(name)
    own = getattr(kind, "parse", None)  # a sweep reads several values of a flag
    command = own(arguments, program=program) if own else parse(kind, arguments, program=program)
    # A run that diverges overflows before its gradient is found not to be finite: one message.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return 0 if command is None else command.run()


def _about(arguments: list[str]) -> int:
    """Answer a call without a command."""
    first = arguments[0] if arguments else "--help"
    if first in ("-V", "--version"):
        print(f"functional-lm {__version__}")
    elif first in ("-h", "--help"):
        print("A transformer language model in NumPy with every gradient written by hand.\n")
        print("Usage: functional-lm COMMAND [OPTIONS]\n\nCommands:")
        commands = {**COMMANDS, "help COMMAND": "Print what a command takes."}
        print("\n".join(f"  {name:15}{what}" for name, what in commands.items()))
        print("\nOptions:\n  -V, --version  Print the version.")
    else:
        from .help import meant

        what = "option" if first.startswith("-") else "command"
        names = [*COMMANDS, "help", "--help", "--version"]
        raise ValueError(f"there is no {what} {first!r}; {meant(first, names) or 'see --help'}")
    return 0 if arguments else _complain("functional-lm", "a command is required, see above")


def command_named(name: str) -> Any:
    """Return the class of a command."""
    module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
    return getattr(module, name.title().replace("-", ""))


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _launched(program: str) -> runtime.Launch | None:
    """Return what mpiexec says, where the processes that it started do one thing together."""
    return runtime.launched() if program == "functional-lm train" else None


def _complain(program: str, *faults: str, status: int = 2) -> int:
    launch, mpi = _launched(program), sys.modules.get("mpi4py.MPI")
    if launch is not None and launch.rank > 0:
        if mpi is None:
            return status
        time.sleep(1 + launch.rank / 10)  # most faults are those of the first, which ends all
    for fault in faults:
        print(f"{program}: {fault}", file=sys.stderr if launch is None else sys.__stderr__)
    if launch is not None and mpi is not None:
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MPI says no more than that it ends
        mpi.COMM_WORLD.Abort(status)
    return status
