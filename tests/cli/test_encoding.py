"""Texts in other encodings than UTF-8."""

import json

import pytest

from functional_lm.cli.main import main

TEXT = "Ein Füllwort für größere Übungen.\n" * 40


@pytest.fixture
def latin(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    return path


@pytest.fixture
def run(train, latin, tmp_path, capsys):
    """A run on a text in latin-1."""
    given = ["--text-file", str(latin), "--encoding", "latin-1"]
    assert train(tmp_path / "run", *given, steps=2) == 0
    capsys.readouterr()
    return tmp_path / "run"


def loss(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["loss"]


def test_a_run_keeps_the_encoding_of_its_text(run, latin, tmp_path, capsys):
    assert json.loads((run / "config.json").read_text())["text"]["encoding"] == "latin-1"
    assert json.loads((run / "tokenizer.json").read_text())["characters"] == "".join(
        sorted(set(TEXT))
    )
    whole = loss(capsys, run, "--part", "all")
    other = tmp_path / "other.txt"
    other.write_text(TEXT, encoding="utf-16")
    assert loss(capsys, run, "--text-file", other, "--encoding", "utf-16") == whole
    assert loss(capsys, run, "--text-file", latin, "--encoding", "latin-1") == whole


def test_a_config_file_holds_it_for_its_own_text_only(run, train, text, tmp_path, capsys):
    config = ["--config", str(run / "config.json"), "--steps", "2"]
    assert main(["train", *config, "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "config.json").read_text())["text"]
    assert again == json.loads((run / "config.json").read_text())["text"]
    other = ["--text-file", str(text), "--out", str(tmp_path / "other")]
    assert main(["train", *config, *other]) == 0
    assert (
        json.loads((tmp_path / "other" / "config.json").read_text())["text"]["encoding"] == "utf-8"
    )
    capsys.readouterr()


def test_a_sweep_reads_it_too(latin, tmp_path):
    given = [
        "--text-file",
        str(latin),
        "--encoding",
        "latin-1",
        "--steps",
        "2",
        "--lr",
        "1e-3,1e-2",
    ]
    sizes = ["--seq-len", "16", "--d-model", "16", "--n-heads", "2"]
    assert main(["sweep", *given, *sizes, "--out", str(tmp_path / "sweep")]) == 0


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("utf-8", "must be UTF-8: it has the byte 0xfc at offset 5; convert it, or pass its"),
        ("ascii", "must be ASCII: it has the byte 0xfc at offset 5"),
        ("utf-9", "encoding must be one of text that Python knows: got 'utf-9'; try utf-8"),
    ],
)
@pytest.mark.parametrize("command", ["train", "sweep", "evaluate"])
def test_another_encoding_is_refused_in_one_line(run, latin, capsys, command, encoding, says):
    arguments = ["--text-file", str(latin), "--encoding", encoding]
    assert main([command, *([str(run)] if command == "evaluate" else []), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not say what it was trained on"),
        ([], "does not say what it was trained on"),
        ({"text_file": 5, "sha256": ""}, "does not say what it was trained on"),
        ({"text_file": None}, "does not say what it was trained on"),
        ({"text_file": None, "sha256": "", "corpus": [1]}, "corpus must be one of"),
        ({"text_file": "latin.txt", "sha256": "", "encoding": 5}, "encoding must be a string"),
        ({"text_file": "latin.txt", "sha256": ""}, "must be UTF-8"),  # of a run before --encoding
        ({"text_file": "latin.txt", "sha256": "", "encoding": "latin-1"}, "is not the text"),
    ],
)
def test_a_config_that_says_nonsense_of_its_text(run, capsys, monkeypatch, text, says):
    monkeypatch.chdir(run.parent)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"text": text, "training": 3}))
    assert main(["evaluate", str(run)]) == 2
    assert says in capsys.readouterr().err
