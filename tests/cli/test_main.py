import subprocess
import sys
from pathlib import Path

import pytest

import functional_lm
from functional_lm.cli.main import main
from functional_lm.text import Corpus, corpora

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def train(text, out, *more):
    settings = ["--steps", "20", "--batch-size", "4", "--seq-len", "16", "--eval-every", "10"]
    return main(["train", "--text-file", str(text), "--out", str(out), *settings, *more])


def test_train_then_generate(text, tmp_path, capsys):
    assert train(text, tmp_path / "run") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "29 characters" in said.err
    assert "step    20  loss" in said.err
    samples = []
    for seed in ("1", "1", "2"):
        arguments = ["--prompt", "the ", "--max-new-tokens", "30", "--seed", seed]
        assert main(["generate", str(tmp_path / "run"), *arguments]) == 0
        samples.append(capsys.readouterr().out)
    assert samples[0].startswith("the ")
    assert len(samples[0]) == len("the ") + 30 + 1
    assert samples[0] == samples[1] != samples[2]


def test_the_same_seed_trains_the_same_weights(text, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert train(text, tmp_path / name, "--seed", seed) == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_default_corpus_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("FUNCTIONAL_LM_DATA", raising=False)
    monkeypatch.setattr(corpora, "stdlib_corpus", lambda: Corpus(TEXT, "the standard library"))
    settings = ["--steps", "1", "--batch-size", "1", "--seq-len", "16"]
    assert main(["train", "--out", str(tmp_path / "run"), *settings]) == 0
    assert "standard library (FUNCTIONAL_LM_DATA is not set)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--text-file", "missing.txt"], "missing.txt"),
        (["--text-file", "empty.txt"], "empty.txt is empty"),
        (["--text-file", "binary.txt"], "must be UTF-8"),
        (["--text-file", "short.txt"], "at least seq_len + 1 = 65 tokens"),
        (["--text-file", "text.txt", "--out", "taken"], "taken exists; pass another"),
        (["--text-file", "text.txt", "--lr", "-1"], "lr must lie in"),
        (["--text-file", "text.txt", "--steps", "0"], "steps must be at least 1"),
        (["--text-file", "text.txt", "--preset", "huge"], "huge"),
        (["--text-file", "text.txt", "--nothing-like-it"], "nothing-like-it"),
    ],
)
def test_bad_input_to_train_is_one_message(text, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("short.txt").write_text("abc")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    Path("taken").mkdir()
    before = sorted(tmp_path.rglob("*"))
    try:
        status = main(["train", *arguments])
    except SystemExit as error:
        status = error.code
    assert status == 2
    said = capsys.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "must hold config.json: nowhere does not"),
        (["run", "--prompt", ""], "at least one token"),
        (["run", "--prompt", "É"], "got 'É' at position 0"),
        (["run", "--temperature", "-1"], "temperature must lie in"),
    ],
)
def test_bad_input_to_generate_is_one_message(text, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert train(text, "run", "--steps", "1") == 0
    capsys.readouterr()
    assert main(["generate", *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1


def test_the_installed_command():
    command = Path(sys.executable).with_name("functional-lm")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"functional-lm {functional_lm.__version__}\n"
