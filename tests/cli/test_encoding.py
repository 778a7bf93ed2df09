"""Texts in other encodings than UTF-8."""

import json

import pytest

from functional_lm.cli.main import main

from .conftest import SMALL, copy_run

TEXT = "Ein Füllwort für größere Übungen.\n" * 40
LATIN = ["--encoding", "latin-1"]


@pytest.fixture(scope="module")
def latin(tmp_path_factory):
    path = tmp_path_factory.mktemp("latin") / "latin.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    return path


@pytest.fixture(scope="module")
def trained_on_latin(latin):
    out = latin.parent / "run"
    given = ["--text-file", str(latin), *LATIN, "--steps", "2", "--out", str(out)]
    assert main(["train", *given, *SMALL]) == 0
    return out


@pytest.fixture
def run(trained_on_latin, latin, tmp_path):
    return copy_run(trained_on_latin, tmp_path / "run", latin)


def loss(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["loss"]


def test_a_run_keeps_the_encoding_of_its_text(run, latin, tmp_path, capsys):
    assert json.loads((run / "config.json").read_text())["text"]["encoding"] == "latin-1"
    characters = json.loads((run / "tokenizer.json").read_text())["characters"]
    assert characters == "".join(sorted(set(TEXT)))
    whole = loss(capsys, run, "--part", "all")
    other = tmp_path / "other.txt"
    other.write_text(TEXT, encoding="utf-16")
    assert loss(capsys, run, "--text-file", other, "--encoding", "utf-16") == whole
    assert loss(capsys, run, "--text-file", latin, *LATIN) == whole


def test_a_run_on_the_config_of_another_reads_the_text_alike(run, tmp_path):
    config = ["--config", str(run / "config.json"), "--steps", "2"]
    assert main(["train", *config, "--out", str(tmp_path / "again")]) == 0
    texts = (json.loads((path / "config.json").read_text()) for path in (run, tmp_path / "again"))
    assert len({json.dumps(content["text"]) for content in texts}) == 1


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
def test_a_config_with_nonsense_about_its_text(run, latin, capsys, monkeypatch, text, says):
    monkeypatch.chdir(latin.parent)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"text": text, "training": 3}))
    assert main(["evaluate", str(run)]) == 2
    assert says in capsys.readouterr().err
