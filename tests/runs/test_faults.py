"""Faults at every call of the operating system that a save makes, each in a process of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest

from functional_lm.runs.checkpoint import latest_state, save_state
from functional_lm.training import TrainState

CHILD = """
import errno, os, sys
import numpy as np
from functional_lm.training import TrainState
from functional_lm.runs.checkpoint import save_state

folder, call, fault = sys.argv[1:]
function, made = getattr(os, call), 0

def faulty(*arguments, **keywords):
    global made
    made += 1
    if made == number:
        if fault == "kill":
            os.kill(os.getpid(), 9)
        if fault == "short":
            return function(arguments[0], arguments[1][:1])
        raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))
    return function(*arguments, **keywords)

def save():
    setattr(os, call, faulty)
    state = TrainState(2, {"w": np.full(3, 2, np.float32)}, (np.int64(2),), 1, 2)
    try:
        save_state(f"{folder}/{number}", state, metadata={"best_step": None, "best_loss": None})
    except OSError:
        return 1
    return 0 if made >= number else 3

for number in range(1, len(os.listdir(folder)) + 1):  # a start takes longer than a save
    child = os.fork()
    if child == 0:
        os._exit(save())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SAVED, REFUSED, NO_SUCH_CALL = 0, 1, 3
CALLS = ("open", "write", "fsync", "replace", "unlink")
FAULTS = [(call, fault) for call in CALLS for fault in ("ENOSPC", "EACCES", "kill")]
FAULTS += [("write", "short")]
MOST = 9


def state(step):
    return TrainState(step, {"w": np.full(3, step, np.float32)}, (np.int64(step),), 1, step)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX calls")
@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_a_fault_at_any_call_leaves_a_state_that_is_whole(tmp_path, call, fault):
    """Step 2 is saved over step 1 with a fault at the first call, the second, ..."""
    for number in range(1, MOST):
        folder = tmp_path / str(number)
        folder.mkdir()
        for step in (0, 1):
            save_state(folder, state(step), metadata={"best_step": None, "best_loss": None})
    command = [sys.executable, "-c", CHILD, tmp_path, call, fault]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    ends = [int(line) for line in done.stdout.splitlines()]
    calls = ends.index(NO_SUCH_CALL)
    assert calls > 0
    assert set(ends[:calls]) <= ({-9} if fault == "kill" else {SAVED, REFUSED})
    for number, end in enumerate(ends[:calls], start=1):
        folder = tmp_path / str(number)
        said = []
        found, _ = latest_state(folder, lambda: state(0), said.append)
        assert said == []  # nothing is damaged
        assert (found.params["w"] == found.step).all()
        assert found.step == 2 if end == SAVED else found.step in (1, 2)
        left = [path.name for path in (folder / "checkpoints").glob(".*")]
        assert left == [] or fault == "kill"
