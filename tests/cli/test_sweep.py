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
    rates = ["--lr", "1e-3,1e38", "--min-lr", "1e38"]
    with np.errstate(all="ignore"):
        assert main(["sweep", "--text-file", str(text), *rates, "--out", str(out), *SETTINGS]) == 1
    rows = json.loads((out / "sweep.json").read_text())
    assert rows[1]["val_loss"] is None
    assert rows[1]["fault"].startswith("diverged at step")
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
