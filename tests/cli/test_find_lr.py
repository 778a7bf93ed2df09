import json

import pytest

from functional_lm.cli.main import main

SETTINGS = ["--batch-size", "4", "--seq-len", "16", "--d-model", "16", "--n-layers", "1"]


def test_a_suggestion_a_curve_a_file_and_a_picture(text, tmp_path, capsys):
    out = tmp_path / "test"
    assert main(["find-lr", "--text-file", str(text), "--out", str(out), *SETTINGS]) == 0
    said = capsys.readouterr().out
    result = json.loads((out / "find-lr.json").read_text())
    assert f"suggestion  lr {result['suggestion']:.2g}" in said
    assert "loss by learning rate" in said
    assert "diverged at" in said
    assert max(map(len, said.splitlines())) <= 80 + len(str(out))
    assert 1e-3 < result["suggestion"] < 1e-1
    assert len(result["rates"]) == len(result["losses"]) == len(result["smoothed"]) < 100
    assert (out / "find-lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_range_that_ends_early_is_named(text, tmp_path, capsys):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "test"), *SETTINGS]
    assert main(["find-lr", *arguments, "--highest", "1e-2", "--test-steps", "40"]) == 0
    said = capsys.readouterr().out
    assert "not diverged" in said
    assert "pass a higher --highest" in said


def test_the_config_of_a_run_serves(run_folder, tmp_path, capsys):
    out = tmp_path / "test"
    settings = ["--config", str(run_folder / "config.json"), "--test-steps", "30"]
    assert main(["find-lr", *settings, "--out", str(out)]) == 0
    assert "test  30 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--test-steps", "5"], 2, "test_steps must be at least 20"),
        (["--lowest", "1", "--highest", "1"], 2, "highest must be finite and at least 2"),
        (["--highest", "1e-4"], 1, "no learning rate learned anything"),
        (["--seq-len", "1000"], 2, "the last tenth of the text must have"),
    ],
)
def test_what_does_not_go(text, tmp_path, capsys, flags, status, says):
    arguments = ["--text-file", str(text), "--out", str(tmp_path / "test"), *SETTINGS]
    assert main(["find-lr", *arguments, *flags]) == status
    assert says in capsys.readouterr().err
