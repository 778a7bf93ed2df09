import subprocess
import sys
from pathlib import Path


def test_nothing_differs():
    command = [sys.executable, Path(__file__).with_name("run.py")]
    command += ["--texts", "30", "--megabytes", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 30 texts") == 6
    assert "bpe: a line of 0.3 MB" in done.stdout
    assert done.stdout.endswith("nothing differs\n")
