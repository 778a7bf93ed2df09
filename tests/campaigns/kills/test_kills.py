"""Short campaigns; `run.py` has the long ones."""

import subprocess
import sys
from pathlib import Path

import pytest

SHORT = {
    "kills": 2,
    "overwrite": 2,
    "ranks": 1,
    "starts": 2,
    "power": 1,
    "encodings": 3,
    "steps": 10,
}


@pytest.mark.parametrize("mode", SHORT)
def test_a_disturbed_run_loses_nothing(mode, request):
    if mode == "ranks":
        request.getfixturevalue("mpiexec")  # skips without it
    count = str(SHORT[mode])
    command = [sys.executable, Path(__file__).with_name("run.py"), mode, "--count", count]
    done = subprocess.run([*command, "--steps", "30"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{count} ")
