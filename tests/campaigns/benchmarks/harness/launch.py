"""A command from its start to a line that it prints, and to its end."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import machine
from .process import PeerFailed, environment

MARK = "first step done"
"""What a script prints, on a line of its own, after its first training step."""


class Launch(NamedTuple):
    """How long a command took."""

    seconds: float  # of wall time, to the mark; to the end if no mark is asked for
    disturbance: machine.Disturbance


def launch(command: Sequence[str], mark: str, *, path: Path) -> Launch:
    """Run a command.

    Args:
        command: what to run.
        mark: the beginning of the line at which the time, and the command, end; empty: let it
            come to its end.
        path: where its Python finds modules besides those that are installed.

    Raises:
        PeerFailed: if there is no mark, or the exit status is not 0; with the end of what it said.
    """
    before, start = machine.usage(), time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment() | {"PYTHONPATH": str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    found, said = None, []
    with process.stdout:
        for line in process.stdout:
            said.append(line)
            if mark and line.startswith(mark):
                found = time.perf_counter()
                process.kill()
                break
    _, status, used = os.wait4(process.pid, 0)
    end, after = time.perf_counter(), machine.usage()
    process.returncode = os.waitstatus_to_exitcode(status)
    if found is None and (mark or process.returncode):
        raise PeerFailed("".join([f"{' '.join(command)} failed; it said:\n", *said[-12:]]).strip())
    what = machine.disturbance(before, after, used.ru_utime + used.ru_stime)
    return Launch((found or end) - start, what)
