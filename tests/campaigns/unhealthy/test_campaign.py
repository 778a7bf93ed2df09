"""A short campaign on generated text; `run.py` is the long one."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHORT = (
    "rate x 100",
    "initialisation x 10",
    "dead layer",
    "noise for a stretch",
)


@pytest.mark.parametrize("name", ["default", "own model", *SHORT])
def test_what_was_done_is_what_is_found(monkeypatch, name):
    monkeypatch.syspath_prepend(HERE)
    from campaign import judge

    judged = judge((name, "narrow", "made", 3))
    assert [one["name"] for one in judged.found] == [judged.expected] * (name in SHORT)
