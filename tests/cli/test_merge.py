"""Tuning a run with adapters, and merging them."""

import json
import re

import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.cli.main import main
from functional_lm.runs import open_run, read_metrics

LORA = ["--lora-rank", "2", "--lora-dropout", "0.1"]


@pytest.fixture
def base(train, tmp_path):
    assert train(tmp_path / "base", steps=5) == 0
    return tmp_path / "base"


def tune(text, base, out, *more):
    settings = ["--text-file", str(text), "--batch-size", "4", "--seq-len", "16", "--steps", "6"]
    return main(["train", *settings, "--init", str(base), "--out", str(out), *more])


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (LORA, "in mixer.qkv, mixer.out, mlp.up, mlp.down"),
        (["--adapter", "prefix", "--adapter-size", "3"], "in mixer.prefix"),
    ],
    ids=["lora", "prefix"],
)
def test_a_tuned_run_is_a_run(text, base, tmp_path, capsys, kind, places):
    out = tmp_path / "tuned"
    assert tune(text, base, out, *kind) == 0
    assert re.search(rf"^trained .*, {places}$", capsys.readouterr().out, re.MULTILINE)
    before, after = open_run(base), open_run(out)
    own = [path for path, _ in pytree.leaves_with_path(after.params)]
    for path, leaf in pytree.leaves_with_path(before.params):
        if path in own:  # neither adapted nor trained
            np.testing.assert_array_equal(dict(pytree.leaves_with_path(after.params))[path], leaf)
    assert (out / "adapters.safetensors").is_file()
    assert main(["train", "--resume", str(out), "--steps", "8"]) == 0
    assert len(read_metrics(out / "metrics.jsonl")) == 8
    assert main(["generate", str(out), "--max-new-tokens", "20"]) == 0
    assert main(["diagnose", str(out)]) in (0, 1)


def test_merged_weights_have_the_same_loss(text, base, tmp_path, capsys):
    tuned, merged = str(tmp_path / "tuned"), str(tmp_path / "merged")
    assert tune(text, base, tuned, "--dora", *LORA) == 0
    assert main(["merge", tuned, merged]) == 0
    losses = []
    for run in (tuned, merged):
        capsys.readouterr()
        assert main(["evaluate", run, "--json"]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert tune(text, tuned, tmp_path / "again", "--lora-rank", "1") == 0  # from merged weights
    assert open_run(tmp_path / "again").model.adapted.base.adapted is None
    capsys.readouterr()
    assert main(["merge", merged, str(tmp_path / "other")]) == 2
    assert "has none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora-rank", "2"], "adapters tune a run: got lora and no run"),
        (["--lora-rank", "0"], "lora_rank must be at least 1: got 0"),
        (["--lora-alpha", "4"], "--lora-alpha needs --lora-rank"),
        (["--adapter-size", "4"], "--adapter-size needs --adapter"),
    ],
)
def test_flags_that_make_no_sense_are_refused(capsys, arguments, message):
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err
