import os

import pytest

from functional_lm.cli.main import main
from functional_lm.cli.runs import find_run


@pytest.fixture
def here(run_folder, monkeypatch):
    """The folder of a run, and an older one in its folder runs."""
    monkeypatch.chdir(run_folder.parent)
    older = run_folder.parent / "runs" / "older"
    older.mkdir(parents=True)
    (older / "config.json").write_text("[")
    os.utime(older / "config.json", (0, 0))
    return run_folder.parent


@pytest.mark.parametrize("name", ["latest", "run", "run/metrics.jsonl", "./run/config.json"])
def test_a_run_has_many_names(here, name):
    assert find_run(name).resolve() == here / "run"


def test_where_there_is_none_the_others_are_listed(here, capsys):
    assert main(["generate", "rum"]) == 2
    assert "no run in rum; the runs here are run, runs/older" in capsys.readouterr().err
    os.chdir(here / "runs" / "older")
    assert main(["train", "--resume", "latest"]) == 2
    assert "no run here yet; train one with functional-lm train" in capsys.readouterr().err


def test_they_are_listed(here, capsys):
    for file in (here / "run").iterdir():
        os.utime(file)  # the copy is as old as the original
    assert main(["runs"]) == 0
    head, newest, oldest = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["run", "text", "model", "steps", "validation", "bits/byte", "age"]
    assert newest[0] == "run"
    assert newest[-5:-3] == ["llama", "20"]
    assert float(newest[-2]) > float(newest[-3]) > 0
    assert newest[-1] == "now"
    assert oldest[:5] == ["runs/older", "-", "-", "-", "-"]
    os.chdir(here / "runs" / "older")
    assert main(["runs"]) == 0
    assert "train one with" in capsys.readouterr().out
