"""What a terminal shows, by a real process in a pseudo-terminal."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from functional_lm.runs.records import clock

from .conftest import SMALL

COMMAND = Path(sys.executable).with_name("functional-lm")


def lines_on_terminal(columns, arguments):
    """Return all that a command writes to a terminal of that width, line by line."""
    termios = pytest.importorskip("termios", reason="needs POSIX terminals")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    data = b""
    with subprocess.Popen(
        [COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # once the process has closed it
            while block := os.read(ours, 65536):
                data += block
    os.close(ours)
    assert process.returncode == 0
    return re.split(r"[\r\n]+|\x1b\[[?\d;]*[AKhl]", re.sub(r"\x1b\[[\d;]*m", "", data.decode()))


@pytest.mark.parametrize("columns", [80, 120])
def test_a_run_fills_the_terminal(text, tmp_path, columns):
    flags = ["--steps", "40", "--eval-every", "20", "--sample-every", "20", *SMALL]
    arguments = ["train", "--text-file", text, "--out", tmp_path / "run", *flags]
    lines = lines_on_terminal(columns, arguments)
    assert max(len(line) for line in lines if str(tmp_path) not in line) == columns
    live = [line for line in lines if "━" in line]
    assert {len(line) for line in live} <= {0, columns}
    first = next(i for i, line in enumerate(lines) if re.match(r"step 20/40  loss .*left$", line))
    assert "bits/byte" in lines[first]
    assert "sample after step 20:" in lines[first:]
    wide = ("lr ", " tok/s", "0:0") if columns == 120 else ("lr ",)
    last = [line for line in lines if line.startswith("step 40/40  loss") and "━" not in line]
    assert len(last) == 1
    assert all(part in last[0] for part in wide)


def test_durations_have_hours():
    assert [clock(s) for s in (0, 59.6, 3599, 3600, 100_000)] == [
        *("0:00", "1:00", "59:59", "1:00:00", "27:46:40")
    ]
