"""The flag --data: corpora in files, through all commands that train or measure."""

import gzip
import json

import pytest

from functional_lm.cli.main import main
from functional_lm.runs import read_metrics

SMALL = ["--batch-size", "4", "--seq-len", "16", "--d-model", "16", "--n-heads", "2"]
WORDS = "the quick brown fox jumps over the lazy dog."


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return the folder of two corpora; encodings are kept beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    lines = [json.dumps({"body": f"{WORDS} {i}"}) for i in range(60)]
    (tmp_path / "web" / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "books.txt.gz").write_bytes(gzip.compress((WORDS * 40).encode()))
    return tmp_path


def train(*arguments):
    return main(["train", *SMALL, "--steps", "6", "--eval-every", "3", *map(str, arguments)])


def mixture(data):
    return [f"{data / 'web'}=3", f"{data / 'books.txt.gz'}=1", "--text-field", "body"]


def test_a_mixture_is_trained_resumed_and_measured(data, capsys):
    out = data / "run"
    assert train("--data", *mixture(data), "--out", out) == 0
    said = capsys.readouterr().out
    assert f"text        {data / 'web'}=3, {data / 'books.txt.gz'}\n" in said
    text = json.loads((out / "config.json").read_text())["text"]
    assert text["data"] == [f"{data / 'web'}=3", str(data / "books.txt.gz")]
    assert (text["text_field"], text["validation"]) == ("body", None)
    assert train("--data", *mixture(data), "--out", data / "long", "--steps", "12") == 0
    assert main(["train", "--resume", str(out), "--steps", "12"]) == 0
    # The schedule follows the new length, but the batches are the same ones.
    assert read_metrics(out / "metrics.jsonl")[-1]["step"] == 12
    capsys.readouterr()
    assert main(["evaluate", str(out), "--json"]) == 0
    loss = json.loads(capsys.readouterr().out)["loss"]
    best = min(r["val_loss"] for r in read_metrics(out / "metrics.jsonl") if "val_loss" in r)
    assert loss == pytest.approx(best, rel=1e-6)
    assert main(["evaluate", str(out), "--part", "training"]) == 2
    assert "has no one loss: got --part training" in capsys.readouterr().err


def test_a_resumed_run_needs_the_same_data(data, capsys):
    assert train("--data", data / "books.txt.gz", "--out", data / "run") == 0
    (data / "books.txt.gz").write_bytes(gzip.compress((WORDS * 50).encode()))
    assert main(["train", "--resume", str(data / "run"), "--steps", "12"]) == 2
    assert "a resumed run needs the text that it began with" in capsys.readouterr().err
    assert main(["evaluate", str(data / "run")]) == 2
    assert "is not the text that" in capsys.readouterr().err


def test_held_out_documents_and_a_sweep(data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    flags = ["--data", data / "web", "--text-field", "body", "--validation", "documents"]
    assert main(["sweep", *SMALL, "--steps", "4", *map(str, flags), "--lr", "1e-3,1e-2"]) == 0
    said = capsys.readouterr().out
    assert f"--data {data / 'web'} --text-field body --validation documents" in said


BAD = {
    "two texts": (["--data", "books.txt.gz", "--corpus", "stdlib"], "got --corpus stdlib and --da"),
    "no number": (["--data", "books.txt.gz=a"], "data must be PATH or PATH=WEIGHT: got"),
    "no file": (["--data", "nothing"], "nothing: No such file"),
    "no such files": (["--data", "empty"], "empty must hold .txt, .jsonl or .parquet files"),
    "another field": (["--data", "web"], "web/a.jsonl, line 1, must be an object with a text"),
    "a field of nothing": (["--text-field", "a"], "--text-field needs --data: got none"),
    "epochs": (["--data", "web=1", "books.txt.gz=1", "--text-field", "body", "--epochs", "1"],
               "epochs are passes over one text: got epochs=1 and a mixture of 2"),
    "a short part": (["--data", "short.txt"], "must have at least seq_len + 1 = 65 tokens: got 10"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_error(data, monkeypatch, capsys, name):
    monkeypatch.chdir(data)
    (data / "empty").mkdir()
    (data / "short.txt").write_text("to be or not")
    arguments, says = BAD[name]
    assert main(["train", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert not (data / "runs").exists()
