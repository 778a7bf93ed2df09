"""A short campaign; `run.py` is the long one."""

import subprocess
import sys
from pathlib import Path


def test_forty_kills_lose_nothing():
    command = [sys.executable, Path(__file__).with_name("run.py"), "--kills", "40", "--fork"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("40 kills")
