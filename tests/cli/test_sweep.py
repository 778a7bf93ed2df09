import json

import pytest

from functional_lm.cli.main import main

SETTINGS = ["--steps", "15", "--batch-size", "4", "--seq-len", "16", "--d-model", "16"]


def test_rates_are_compared_and_bad_ones_named(text, tmp_path, capsys):
    out = tmp_path / "sweep"
    rates = ["--lr", "1e-2,2e-2,3,1e38", "--min-lr", "1e-2"]
    assert main(["sweep", "--text-file", str(text), *rates, "--out", str(out), *SETTINGS]) == 0
    slow, fast, chance, diverged = json.loads((out / "sweep.json").read_text())
    assert slow["fault"] is fast["fault"] is None
    assert chance["fault"] == "no better than chance"
    assert chance["val_loss"] > slow["val_loss"] > fast["val_loss"]
    assert diverged["val_loss"] is None
    assert diverged["fault"].startswith("diverged at step")
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr()
    assert "best  lr 0.02" in said.out
    assert "validation loss by lr" in said.out
    assert said.err == ""


def test_where_no_rate_learns_it_says_so(text, tmp_path, capsys):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "sweep"), *SETTINGS]
    assert main(["sweep", *arguments, "--lr", "1e38"]) == 1
    assert "no run learned anything" in capsys.readouterr().err


def test_two_flags_make_a_grid_and_any_flag_can_be_swept(text, tmp_path, capsys):
    out = tmp_path / "sweep"
    grid = ["--optimizer=adamw,sgd", "--n-layers", "1,2", "--out", str(out), "--lr", "1e-2"]
    assert main(["sweep", "--text-file", str(text), *SETTINGS, *grid]) == 0
    rows = json.loads((out / "sweep.json").read_text())
    values = [(row["optimizer"], row["n-layers"]) for row in rows]
    assert values == [("adamw", 1), ("adamw", 2), ("sgd", 1), ("sgd", 2)]
    said = capsys.readouterr().out
    assert "4 runs of 15 steps" in said
    assert "validation loss by n-layers" in said
    assert "best  optimizer adamw  n-layers " in said
    last = said.splitlines()[-1].split()
    assert last[:3] == ["next", "functional-lm", "train"]
    assert main([*last[2:], "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lr", "1e-2,1e-2"], "lr must have distinct values: got 1e-2,1e-2"),
        (["--lr", "1e-2,x"], "--lr must be a number, such as 0.1 or 3e-4: got 'x'"),
        (["--lr", "1,2", "--seed", "1,2", "--b1", "0,0.5"], "at most two flags: got lr, seed, b1"),
        (["--learning", "1,2"], "there is no flag --learning"),
    ],
)
def test_impossible_grids_are_named(text, tmp_path, capsys, flags, says):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "sweep"), *SETTINGS]
    assert main(["sweep", *arguments, *flags]) == 2
    assert says in capsys.readouterr().err
