import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from functional_lm.cli.main import main


def write(folder, records):
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines)
    return str(folder)


def test_a_trained_run(run_folder, capsys):
    assert main(["plot", str(run_folder)]) == 0
    picture = run_folder / "plot.png"
    said = capsys.readouterr()
    assert said.out.endswith(f"written to {picture}\n")
    assert said.err == ""
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_several_runs_share_a_picture_in_the_current_folder(
    run_records, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    poor = write(tmp_path / "b" / "run", [{"step": 1, "loss": 1.0}])
    assert main(["plot", write(tmp_path / "a" / "run", run_records()), poor]) == 0
    said = capsys.readouterr().out
    missing = "validation loss, bits per byte of the held-out text, learning rate"
    assert f"not recorded by {poor}: {missing}" in said
    before = Path("plot.png").read_bytes()
    assert main(["plot", poor, poor, "--out", "plot.png"]) == 0  # replaces an earlier one
    assert Path("plot.png").read_bytes() != before
    assert main(["plot", poor, "--out", "plot.svg"]) == 0
    assert "<svg" in Path("plot.svg").read_text()


def test_folders_without_a_run_are_left_out(run_records, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = write(Path("runs/a"), run_records())
    write(Path("runs/new"), [])
    Path("runs/find-lr").mkdir()
    assert main(["plot", *map(str, sorted(Path("runs").iterdir()))]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"written to {run}/plot.png\n")
    assert said.err.splitlines() == [
        "left out: there is no run in runs/find-lr",
        "left out: a run must have made a step: runs/new/metrics.jsonl has none",
    ]


def test_without_matplotlib_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = write(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    for command in ("plot", "report"):
        assert main([command, run]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "pip install 'functional-lm[plot]'" in line
