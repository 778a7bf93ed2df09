"""Faults at every call of the operating system that a save makes, in processes of their own."""

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

folder, call, number, fault = sys.argv[1:]
function, made = getattr(os, call), 0

def faulty(*arguments, **keywords):
    global made
    made += 1
    if made == int(number):
        if fault == "kill":
            os.kill(os.getpid(), 9)
        if fault == "short":
            return function(arguments[0], arguments[1][:1])
        raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))
    return function(*arguments, **keywords)

setattr(os, call, faulty)
state = TrainState(2, {"w": np.full(3, 2, np.float32)}, (np.int64(2),), 1, 2)
try:
    save_state(folder, state, metadata={"best_step": None, "best_loss": None})
except OSError as error:
    print(f"refused: {error}")
else:
    print("saved")
sys.exit(0 if made >= int(number) else 3)
"""
CALLS = ("open", "write", "fsync", "replace", "unlink")
FAULTS = [(call, fault) for call in CALLS for fault in ("ENOSPC", "EACCES", "kill")]
FAULTS += [("write", "short")]
MOST = 9


def state(step):
    return TrainState(step, {"w": np.full(3, step, np.float32)}, (np.int64(step),), 1, step)


def run_child(folder, call, number, fault):
    """Save step 2 over step 1 with a fault at a call; return the process that did."""
    arguments = [sys.executable, "-c", CHILD, folder, call, str(number), fault]
    return subprocess.run(arguments, capture_output=True, text=True)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX calls")
@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_a_fault_at_any_call_leaves_a_state_that_is_whole(tmp_path, call, fault):
    for number in range(1, MOST):
        folder = tmp_path / str(number)
        folder.mkdir()
        for step in (0, 1):
            save_state(folder, state(step), metadata={"best_step": None, "best_loss": None})
        done = run_child(folder, call, number, fault)
        if done.returncode == 3:  # there is no such call any more
            assert done.stdout == "saved\n"
            assert number > 1
            break
        assert done.returncode == (-9 if fault == "kill" else 0), done.stderr
        said = []
        found, _ = latest_state(folder, lambda: state(0), said.append)
        assert said == []  # nothing is damaged
        assert (found.params["w"] == found.step).all()
        assert found.step == 2 if done.stdout == "saved\n" else found.step in (1, 2)
        left = [path.name for path in (folder / "checkpoints").glob(".*")]
        assert left == [] or fault == "kill"
    else:
        raise AssertionError(f"a save makes more than {MOST} calls of {call}")
