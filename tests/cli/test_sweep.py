import json

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
    assert "validation loss by learning rate" in said.out
    assert said.err == ""


def test_where_no_rate_learns_it_says_so(text, tmp_path, capsys):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "sweep"), *SETTINGS]
    assert main(["sweep", *arguments, "--lr", "1e38"]) == 1
    assert "no learning rate learned anything" in capsys.readouterr().err
