import json

import numpy as np

from functional_lm.cli.main import main

SETTINGS = ["--steps", "15", "--batch-size", "4", "--seq-len", "16", "--d-model", "16"]


def test_a_table_a_file_and_plots(text, tmp_path, capsys):
    out = tmp_path / "sweep"
    arguments = ["--text-file", str(text), "--lr", "1e-4,1e-2", "--out", str(out), *SETTINGS]
    assert main(["sweep", *arguments]) == 0
    said = capsys.readouterr().out
    assert "best  lr 0.01" in said
    assert "validation loss by learning rate" in said
    rows = json.loads((out / "sweep.json").read_text())
    assert [row["lr"] for row in rows] == [1e-4, 1e-2]
    assert rows[1]["val_loss"] < rows[0]["val_loss"]
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_rate_that_diverges_is_named(text, tmp_path, capsys):
    out = tmp_path / "sweep"
    arguments = ["--text-file", str(text), "--out", str(out), *SETTINGS]
    assert main(["sweep", *arguments, "--lr", "1e-2,1e38"]) == 0
    good, bad = json.loads((out / "sweep.json").read_text())
    assert good["fault"] is None
    assert bad["val_loss"] is None
    assert bad["fault"].startswith("diverged at step")
    said = capsys.readouterr()
    assert "best  lr 0.01" in said.out
    assert said.err == ""


def test_where_no_rate_learns_it_says_so(text, tmp_path, capsys):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "sweep"), *SETTINGS]
    assert main(["sweep", *arguments, "--lr", "1e38"]) == 1
    assert "no learning rate learned anything" in capsys.readouterr().err


def test_a_rate_that_is_no_better_than_chance_is_left_out_of_the_plots(text, tmp_path, capsys):
    out = tmp_path / "sweep"
    rates = ["--lr", "1e-2,3", "--min-lr", "1e-2"]
    assert main(["sweep", "--text-file", str(text), *rates, "--out", str(out), *SETTINGS]) == 0
    good, bad = json.loads((out / "sweep.json").read_text())
    assert good["fault"] is None
    assert bad["fault"] == "no better than chance"
    assert bad["val_loss"] > np.log(29)
    assert "best  lr 0.01" in capsys.readouterr().out
