import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from functional_lm.speed import threads


def test_results_come_in_order():
    tasks = [lambda i=i: (time.sleep(0.01 * (5 - i)), i)[1] for i in range(5)]
    assert threads.run(tasks, 3) == [0, 1, 2, 3, 4]
    assert threads.run([], 3) == []


def test_tasks_run_side_by_side():
    both = threading.Barrier(2, timeout=10)
    threads.run([both.wait, both.wait], 2)


def test_the_first_error_is_raised_once_all_have_ended():
    ended = []

    def fail():
        raise ValueError("this one")

    def slow():
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(ValueError, match="this one"):
        threads.run([fail, slow], 2)
    assert ended == [True]
    assert threads.run([lambda: 1, lambda: 2], 2) == [1, 2]


def test_the_error_state_of_numpy_holds_in_every_thread():
    def overflow():
        return np.float32(1e38) * np.float32(1e38)

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.run([lambda: None, lambda: time.sleep(0.05), overflow, overflow], 2)


def test_inside_of_a_task_tasks_run_one_after_another():
    def inner():
        names = threads.run([threading.get_ident] * 3, 2)
        assert len(set(names)) == 1
        return names[0]

    assert len(threads.run([inner] * 4, 2)) == 4


FORK = """
import os, time, warnings
from functional_lm.speed import threads
threads.run([lambda: time.sleep(0.01)] * 2, 2)
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    os._exit(0 if threads.run([lambda: 1] * 2, 2) == [1, 1] else 1)
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing on this platform")
def test_a_fork_makes_threads_of_its_own():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)
