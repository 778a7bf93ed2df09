import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.cli.main import main
from functional_lm.models import architectures
from functional_lm.runs import load_checkpoint, open_run, read_metrics
from functional_lm.speed.runtime import cores
from functional_lm.text import Corpus, corpora


def test_what_a_run_says_and_leaves(train, tmp_path, capsys):
    out = tmp_path / "deep" / "run"
    assert train(out, "--eval-every", "5", "--sample-every", "10", "--log-every", "10") == 0
    said = capsys.readouterr()
    assert said.err == ""
    for part in ("29 characters", "1,620 to train on, 180 held out", "parameters", str(out)):
        assert part in said.out
    lines = said.out.splitlines()
    assert re.search(r"step 10/20  loss \d.\d+  val \d.\d+  \d.\d+ bits/byte", said.out)
    assert len([line for line in lines if "step 20/20" in line]) == 1
    assert said.out.index("sample after step 10:\n") < said.out.index("step 15/20")
    assert re.search(
        r"20 steps in 0:\d\d, loss .*, validation .*, the best .* at step 20", said.out
    )
    assert lines[-4] == f"saved in {out}"
    assert lines[-3:] == [
        f"next        functional-lm generate {out}",
        f"            functional-lm report {out}",
        f"            functional-lm train --resume {out} --steps 40",
    ]
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "last.safetensors",
        "metrics.jsonl",
        "model.safetensors",
        "sample.txt",
        "tokenizer.json",
    ]
    sample = (out / "sample.txt").read_text()
    assert sample.count("--- step") == 2
    assert "--- step 20\n" in sample


def test_a_dry_run_says_what_it_costs_and_writes_nothing(train, tmp_path, capsys):
    assert train(tmp_path / "run", "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    wanted = "29 characters,d_model 16,seed 0,kB of optimizer state,kB of residuals of 4 windows"
    for part in (*wanted.split(","), "for 20 steps"):
        assert part in said
    assert not (tmp_path / "run").exists()


def test_the_best_and_the_last_weights_are_kept(train, text, tmp_path):
    out = tmp_path / "run"
    # What is held out has letters that training never shows, so that it gets worse and worse.
    text.write_text("ab" * 900 + "cd" * 100)
    flags = ["--lr", "1e-2", "--min-lr", "1e-2", "--eval-every", "1", "--no-tie-embeddings"]
    assert train(out, *flags) == 0
    losses = [record["val_loss"] for record in read_metrics(out / "metrics.jsonl")]
    best = int(np.argmin(losses))
    assert best < 19
    run = open_run(out)
    last = load_checkpoint(out / "last.safetensors", like=run.params).tree
    assert (last["embedding"]["weight"] != run.params["embedding"]["weight"]).any()
    assert main(["evaluate", str(out)]) == 0


def test_the_same_seed_trains_the_same_weights(train, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert train(tmp_path / name, "--seed", seed, "--dropout", "0.1") == 0
    a, b, c = ((tmp_path / name / "last.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    recorded = json.loads((tmp_path / "a" / "config.json").read_text())["training"]
    assert recorded["shards"] == min(cores(), 4)


def test_a_run_can_be_made_again_from_its_config(train, tmp_path):
    assert train(tmp_path / "a", "--seed", "5") == 0
    arguments = ["--config", str(tmp_path / "a" / "config.json"), "--out", str(tmp_path / "b")]
    assert main(["train", *arguments]) == 0
    a, b = ((tmp_path / name / "last.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_a_run_keeps_a_custom_model_and_its_neighbours(train, tmp_path, capsys):
    (tmp_path / "my_table.py").write_text("from functional_lm.layers import embedding as table\n")
    path = tmp_path / "with_neighbour.py"
    path.write_text(
        "from functional_lm.compose import serial\n"
        "from functional_lm.layers import unembedding\n"
        "from my_table import table\n"
        "model = serial(table=table, out=unembedding)\n"
    )
    out = tmp_path / "run"
    assert train(out, "--model", f"{path}:model") == 0
    path.unlink()
    (tmp_path / "my_table.py").unlink()
    capsys.readouterr()
    command = Path(sys.executable).with_name("functional-lm")  # a process that knows no neighbour
    done = subprocess.run([command, "generate", out], capture_output=True, text=True, check=True)
    assert len(done.stdout) > 300
    # ... and its config trains the same model again.
    arguments = ["--config", str(out / "config.json"), "--out", str(tmp_path / "again")]
    assert main(["train", *arguments]) == 0
    again = (tmp_path / "again" / "last.safetensors").read_bytes()
    assert again == (out / "last.safetensors").read_bytes()


def test_output_that_nobody_reads_stops_it_with_a_word(text, tmp_path):
    command = Path(sys.executable).with_name("functional-lm")
    out = tmp_path / "run"
    arguments = f"--text-file {text} --out {out} --steps 400 --log-every 1 --seq-len 16"
    done = subprocess.run(
        f"{command} train {arguments} --d-model 16 | head -n 7",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "output pipe closed; redirect to a file instead" in done.stderr
    assert (out / "last.safetensors").is_file()


def test_without_a_network_it_says_so(train, tmp_path, capsys, monkeypatch, text):
    monkeypatch.delenv("FUNCTIONAL_LM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(corpora, "stdlib_corpus", lambda: Corpus(text.read_text(), "docstrings"))
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )
    settings = ["--steps", "1", "--batch-size", "1", "--seq-len", "4"]
    assert main(["train", "--out", str(tmp_path / "run"), *settings]) == 0
    assert "docstrings (cannot download https" in capsys.readouterr().out
    # Asked for by name, another text is none.
    assert main(["train", "--out", str(tmp_path / "no"), "--corpus", "shakespeare"]) == 2
    said = capsys.readouterr().err
    assert "cannot download https" in said
    assert "no network; pass another text with --text-file, or --corpus stdlib" in said


def test_a_loss_that_diverges_ends_the_run_with_the_last_good_weights(train, tmp_path, capsys):
    out = tmp_path / "run"
    with np.errstate(all="ignore"):
        status = train(out, "--lr", "1e38", "--min-lr", "1e38", steps=50)
    assert status == 1
    said = capsys.readouterr()
    assert "4 batches in a row without a finite gradient: step " in said.err
    assert said.out.count("skipped: step") == 3
    assert said.err.count("\n") == 1
    best = open_run(out).params
    for params in (best, load_checkpoint(out / "last.safetensors").tree):
        assert all(np.isfinite(leaf).all() for leaf in pytree.leaves(params))


def test_a_long_held_out_text_is_sampled_and_evaluated_whole_at_the_end(train, tmp_path, capsys):
    """Of 180 held-out tokens, validations look at four windows; the windows are always the same."""
    flags = ["--eval-tokens", "64", "--eval-every", "10"]
    for name in ("a", "b"):
        assert train(tmp_path / name, *flags, *([] if name == "a" else ["--no-final-eval"])) == 0
    said = capsys.readouterr().out
    assert said.count("on all 176 held-out tokens") == 1
    a, b = (read_metrics(tmp_path / name / "metrics.jsonl") for name in "ab")
    assert [r.get("val_loss") for r in a] == [r.get("val_loss") for r in b]
    assert not (tmp_path / "b" / "evaluation.json").exists()
    whole = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert main(["evaluate", str(tmp_path / "a"), "--json"]) == 0
    assert whole["loss"] == pytest.approx(json.loads(capsys.readouterr().out)["loss"], rel=1e-6)
    assert whole["loss"] != a[-1]["val_loss"]
    assert (whole["tokens"], whole["step"]) == (176, 20)


def test_config_says_what_is_in_force_and_keeps_what_was_given(train, tmp_path):
    assert train(tmp_path / "run", "--epochs", "1", steps=None) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    in_force = {"steps": 26, "epochs": 1, "lr": 3e-3, "min_lr": 3e-3 / 10, "warmup_steps": 2}
    assert in_force.items() <= config["training"].items()
    assert None not in config["training"].values()
    assert not {"steps", "min_lr", "d_ff"} & config["given"].keys()
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["steps"] == 52


def test_a_run_starts_from_the_weights_of_another(train, tmp_path, capsys):
    assert train(tmp_path / "a", "--d-ff", "24") == 0
    other = tmp_path / "other.txt"
    other.write_text("the lazy dog jumps over the quick brown fox.\n" * 40)
    arguments = ["--init", str(tmp_path / "a"), "--text-file", str(other), "--seq-len", "16"]
    assert main(["train", *arguments, "--out", str(tmp_path / "b"), "--steps", "2"]) == 0
    assert f"weights     those of {tmp_path / 'a'}" in capsys.readouterr().out
    a, b = (open_run(tmp_path / name) for name in "ab")
    assert b.model.config == a.model.config
    assert b.tokenizer == a.tokenizer
    (last, first) = (read_metrics(tmp_path / name / "metrics.jsonl") for name in "ab")
    assert first[0]["loss"] < last[0]["loss"] - 0.05
    assert main(["train", "--resume", str(tmp_path / "b"), "--steps", "3"]) == 0
    assert main(["train", *arguments, "--out", str(tmp_path / "c"), "--d-model", "32"]) == 2
    assert "at blocks.0.mixer.out.weight float32 (32, 32), got" in capsys.readouterr().err
    other.write_text("THE LAZY DOG\n" * 90)
    assert main(["train", *arguments, "--out", str(tmp_path / "c")]) == 2
    assert "must be made of the 29 known characters: got 'T'" in capsys.readouterr().err


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_trains_decodes_and_is_looked_at(name, train, tmp_path, capsys):
    out = tmp_path / "run"
    settings = ["--model", name, "--eval-every", "10", "--statistics-every", "10"]
    assert train(out, *settings, "--d-ff", "24") == 0
    assert json.loads((out / "config.json").read_text())["architecture"] == name
    statistics = read_metrics(out / "metrics.jsonl")[9]["statistics"]
    for site in ("embedding", "blocks.0", "blocks.0.mlp"):
        assert site in statistics["activation_std"]
    assert statistics["attention_entropy"]["blocks.0"] > 0
    for command in ("generate", "evaluate", "diagnose", "info"):
        assert main([command, str(out)]) == 0, command
    assert main(["train", "--resume", str(out), "--steps", "22"]) == 0
    assert f"model       {name}: " in capsys.readouterr().out
