import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from functional_lm.cli.main import main


@pytest.fixture
def make_run(run_records):
    """Return a function that writes the records of a run."""

    def make(folder, records=None):
        folder.mkdir(parents=True)
        lines = [json.dumps(record) + "\n" for record in records or run_records()]
        (folder / "metrics.jsonl").write_text("".join(lines))
        return str(folder)

    return make


def test_a_trained_run(run_folder, capsys):
    assert main(["plot", str(run_folder)]) == 0
    picture = run_folder / "plot.png"
    said = capsys.readouterr()
    assert said.out.endswith(f"written to {picture}\n")
    assert said.err == ""
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_several_runs_go_where_one_stands(make_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    poor = make_run(tmp_path / "b" / "run", [{"step": 1, "loss": 1.0}])
    assert main(["plot", make_run(tmp_path / "a" / "run"), poor]) == 0
    said = capsys.readouterr().out
    assert f"not recorded by {poor}: validation loss, learning rate" in said
    assert Path("plot.png").is_file()
    # An earlier picture is replaced.
    before = Path("plot.png").read_bytes()
    assert main(["plot", poor, poor, "--out", "plot.png"]) == 0
    assert Path("plot.png").read_bytes() != before


def test_the_suffix_says_the_format(make_run, tmp_path):
    run = make_run(tmp_path / "a & b")
    for _ in range(2):
        assert main(["plot", run, "--out", str(tmp_path / "p.svg")]) == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_without_matplotlib_it_says_what_to_install(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for command in ("plot", "report"):
        assert main([command, make_run(tmp_path / command)]) == 2
        said = capsys.readouterr().err
        assert "pip install 'functional-lm[plot]'" in said
        assert len(said.splitlines()) == 1
