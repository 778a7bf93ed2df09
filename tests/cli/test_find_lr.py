import json
import sys

import pytest

from functional_lm.cli.main import main

SETTINGS = ["--batch-size", "4", "--seq-len", "16", "--d-model", "16", "--n-layers", "1"]


def test_a_suggestion_a_curve_a_file_and_a_picture(text, tmp_path, capsys):
    out = tmp_path / "test"
    assert main(["find-lr", "--text-file", str(text), "--out", str(out), *SETTINGS]) == 0
    said = capsys.readouterr().out
    result = json.loads((out / "find-lr.json").read_text())
    rate = f"{result['suggestion']:.2g}"
    assert f"suggestion: lr {rate}, " in said
    flags = f"--text-file {text} --d-model 16 --n-layers 1 --batch-size 4 --seq-len 16"
    assert said.splitlines()[-1] == f"next  functional-lm train --lr {rate} {flags}"
    command = said.splitlines()[-1].split()[2:]
    assert main([*command, "--steps", "2", "--out", str(out / "run")]) == 0
    assert "loss by learning rate" in said
    assert "divergence: at lr" in said
    assert max(map(len, said.splitlines()[:-1])) <= 80 + len(str(out))
    assert 1e-3 < result["suggestion"] < 1e-1
    assert len(result["rates"]) == len(result["losses"]) == len(result["smoothed"]) < 100
    assert (out / "find-lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_range_that_ends_early_and_no_matplotlib(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    settings = ["--config", str(run_folder / "config.json"), "--out", str(tmp_path / "test")]
    assert main(["find-lr", *settings, "--highest", "1e-2", "--test-steps", "40"]) == 0
    said = capsys.readouterr().out
    assert "test  40 steps" in said
    assert "no divergence up to lr 1.0e-02" in said
    assert "pass a higher --highest" in said
    assert "pip install 'functional-lm[plot]'" in said


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--test-steps", "5"], 2, "test_steps must be at least 20"),
        (["--lowest", "1", "--highest", "1"], 2, "highest must be finite and at least 2"),
        (["--highest", "1e-4"], 1, "no learning rate learned anything"),
        (["--steps", "50"], 2, "--steps makes no difference to find-lr"),
        (["--lr", "1e-3"], 2, "--lr makes no difference to find-lr"),
        (["--seq-len", "1000"], 2, "the last tenth of the text must have"),
    ],
)
def test_impossible_settings_are_named(text, tmp_path, capsys, flags, status, says):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "test"), *SETTINGS]
    assert main(["find-lr", *arguments, *flags]) == status
    assert says in capsys.readouterr().err
