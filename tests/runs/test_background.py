import threading

import pytest

from functional_lm.runs.background import BackgroundWriter


def test_writes_run_beside_one_at_a_time_and_the_newest_of_a_kind_stays():
    go, begun, done = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go.wait(10)
        done.append("first")

    writer = BackgroundWriter()
    writer.submit("a", slow)
    assert begun.wait(10)
    for number in range(3):
        writer.submit("a", lambda number=number: done.append(number))
    writer.submit("b", lambda: done.append("b"))
    assert done == []  # nobody waited
    go.set()
    writer.wait()
    assert done == ["first", 2, "b"]


def test_the_error_of_a_write_is_raised_at_the_next_chance_and_no_more_is_written():
    def fail():
        raise OSError("disk full")

    done = []
    writer = BackgroundWriter()
    writer.submit("a", fail)
    with pytest.raises(OSError, match="disk full"):
        writer.wait()
    with pytest.raises(OSError, match="disk full"):
        writer.check()
    with pytest.raises(OSError, match="disk full"):
        writer.submit("a", lambda: done.append(1))
    assert done == []


def test_it_can_be_used_again_after_waiting():
    done = []
    writer = BackgroundWriter()
    for number in range(3):
        writer.submit("a", lambda number=number: done.append(number))
        writer.wait()
    assert done == [0, 1, 2]
