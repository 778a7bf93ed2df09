import os
import signal
import subprocess
import sys

import pytest

from functional_lm.runs.lock import RunLockedError, run_lock

HOLD = """
import sys, time
from functional_lm.runs.lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_goes_with_its_process(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_holder_that_has_not_said_who_it_is(holder, tmp_path):
    (tmp_path / ".lock").write_text("")
    with pytest.raises(RunLockedError, match="held by another process"), run_lock(tmp_path):
        pass
