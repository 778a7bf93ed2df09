"""Faults at every call of the operating system that a save makes, each in a fork of its own."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from functional_lm.runs.checkpoint import latest_state, save_state
from functional_lm.training import TrainState

CHILD = """
import errno, json, os, sys
import numpy as np
from functional_lm.training import TrainState
from functional_lm.runs.checkpoint import save_state

made = 0

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

def save(folder):
    setattr(os, call, faulty)
    state = TrainState(2, {"w": np.full(3, 2, np.float32)}, (np.int64(2),), 1, 2)
    try:
        save_state(f"{folder}/{number}", state, metadata={"best_step": None, "best_loss": None})
    except OSError:
        return 1
    return 0 if made >= number else 3

ends = {}
for place in os.listdir():  # a start takes longer than a save
    call, fault = place.split("-")
    function, ends[place] = getattr(os, call), []
    for number in range(1, len(os.listdir(place)) + 1):
        child = os.fork()
        if child == 0:
            os._exit(save(place))
        ends[place].append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""
SAVED, REFUSED, NO_SUCH_CALL = 0, 1, 3
CALLS = ("open", "write", "fsync", "replace", "unlink")
FAULTS = [(call, fault) for call in CALLS for fault in ("ENOSPC", "EACCES", "kill")]
FAULTS += [("write", "short")]
MOST = 9


def state(step):
    return TrainState(step, {"w": np.full(3, step, np.float32)}, (np.int64(step),), 1, step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save step 2 over step 1 with each fault at the first call, the second, ..."""
    top = tmp_path_factory.mktemp("faults")
    first = top / "-".join(FAULTS[0]) / "1"
    first.mkdir(parents=True)
    for step in (0, 1):
        save_state(first, state(step), metadata={"best_step": None, "best_loss": None})
    for fault in FAULTS:
        for number in range(1, MOST):
            if (folder := top / "-".join(fault) / str(number)) != first:
                shutil.copytree(first, folder)
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=top, capture_output=True, text=True)
    assert done.stderr == ""
    return top, json.loads(done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX calls")
@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_a_fault_at_any_call_leaves_a_state_that_is_whole(saved, call, fault):
    top, ends = saved
    ends = ends[f"{call}-{fault}"]
    calls = ends.index(NO_SUCH_CALL)
    assert calls > 0
    assert set(ends[:calls]) <= ({-9} if fault == "kill" else {SAVED, REFUSED})
    for number, end in enumerate(ends[:calls], start=1):
        folder = top / f"{call}-{fault}" / str(number)
        said = []
        found, _ = latest_state(folder, lambda: state(0), said.append)
        assert said == []  # nothing is damaged
        assert (found.params["w"] == found.step).all()
        assert found.step == 2 if end == SAVED else found.step in (1, 2)
        left = [path.name for path in (folder / "checkpoints").glob(".*")]
        assert left == [] or fault == "kill"
