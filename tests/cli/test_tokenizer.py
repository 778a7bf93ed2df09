import json

import pytest

from functional_lm.cli.main import main
from functional_lm.runs import open_run, read_metrics
from functional_lm.text import load_tokenizer

SIZES = ["--batch-size", "4", "--seq-len", "16", "--d-model", "16", "--n-heads", "2"]


def trained(tmp_path, text, *flags):
    out = tmp_path / "tokenizer.json"
    assert (
        main(["tokenizer", "train", str(text), "--vocab-size", "280", "--out", str(out), *flags])
        == 0
    )
    return out


def test_a_tokenizer_is_trained_and_compared(text, tmp_path, capsys):
    path = trained(tmp_path, text)
    assert "bpe of 280 tokens in" in capsys.readouterr().out
    arguments = ["tokenizer", "compare", "char", "byte", str(path), "--text-file", str(text)]
    assert main([*arguments, "--sample", "the dog\x1b"]) == 2
    assert "got '\\x1b' at position 7" in capsys.readouterr().err
    assert main([*arguments, "--sample", "the dog"]) == 0
    said = capsys.readouterr().out
    assert "char, 7 tokens\nt|h|e| |d|o|g" in said
    assert "the| do" in said
    assert main([*arguments, "--json"]) == 0
    char, byte, bpe = json.loads(capsys.readouterr().out)
    assert (char["vocabulary"], byte["vocabulary"], bpe["vocabulary"]) == (29, 256, 280)
    assert char["tokens_per_character"] == byte["bytes_per_token"] == 1
    assert bpe["bytes_per_token"] == pytest.approx(1 / bpe["tokens_per_character"])
    assert bpe["bytes_per_token"] > 1.5
    assert all(row["exact"] for row in (char, byte, bpe))


def test_what_a_tokenizer_loses_is_said_once(text, tmp_path, capsys):
    path = trained(tmp_path, text, "--kind", "wordpiece", "--vocab-size", "60")
    said = capsys.readouterr()
    assert "warning: the tokenizer does not give back every text" in said.err
    assert main(["tokenizer", "compare", str(path), "--text-file", str(text)]) == 0
    said = capsys.readouterr()
    assert "no\n" in said.out
    assert said.err.count("does not give back every text") == 1
    run = tmp_path / "run"
    arguments = ["train", str(text), *SIZES, "--tokenizer", str(path), "--out", str(run)]
    assert main([*arguments, "--steps", "2"]) == 0
    assert capsys.readouterr().err.count("does not give back every text") == 1
    assert main(["generate", str(run), "--prompt", "the", "--max-new-tokens", "3"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:280", "FILE"])
def test_a_run_keeps_its_tokenizer(tokenizer, text, tmp_path, capsys):
    run = tmp_path / "run"
    if tokenizer == "FILE":
        tokenizer = str(trained(tmp_path, text))
    arguments = ["train", str(text), *SIZES, "--tokenizer", tokenizer, "--steps", "2"]
    assert main([*arguments, "--out", str(run)]) == 0
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)
    before = (run / "tokenizer.json").read_bytes()
    assert main(["train", "--resume", str(run), "--steps", "4"]) == 0
    assert (run / "tokenizer.json").read_bytes() == before
    assert open_run(run).tokenizer == load_tokenizer(run / "tokenizer.json")
    records = read_metrics(run / "metrics.jsonl")
    assert [("val_loss" in r, "bits_per_byte" in r) for r in records[2:]] == [
        (False,) * 2,
        (True,) * 2,
    ]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["bits_per_byte"] == pytest.approx(records[-1]["bits_per_byte"], rel=1e-6)
    assert (
        main(
            [
                "train",
                "--init",
                str(run),
                "--text-file",
                str(text),
                "--steps",
                "1",
                "--out",
                str(tmp_path / "tuned"),
            ]
        )
        == 0
    )
    assert (tmp_path / "tuned" / "tokenizer.json").read_bytes() == before


def test_another_tokenizer_for_a_run_is_refused(text, tmp_path, capsys):
    run = tmp_path / "run"
    train = ["train", str(text), *SIZES, "--steps", "1", "--out", str(run)]
    assert main([*train, "--tokenizer", "bpe:280"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--tokenizer", "byte"]) == 2
    assert "keeps its tokenizer, bpe:280: got --tokenizer byte" in capsys.readouterr().err
    assert main(["train", "--init", str(run), "--tokenizer", "byte"]) == 2
    assert "got --tokenizer byte and --init" in capsys.readouterr().err
    path = run / "tokenizer.json"
    path.write_text(path.read_text().replace('"vocab"', '"vocab" '))
    assert main(["train", "--resume", str(run), "--steps", "2"]) == 0  # the same, spaced otherwise
    capsys.readouterr()
    path.write_text('{"type": "byte"}')
    assert main(["train", "--resume", str(run), "--steps", "3"]) == 2
    assert "vocab_size" in (said := capsys.readouterr().err) or "tokenizer" in said


def test_a_sweep_of_tokenizers_compares_bits_per_byte(text, tmp_path, capsys):
    arguments = ["sweep", str(text), *SIZES, "--tokenizer", "char,byte,bpe:280", "--steps", "20"]
    assert main([*arguments, "--lr", "3e-3", "--out", str(tmp_path / "sweep")]) == 0
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    best = min(rows, key=lambda row: row["bits_per_byte"])["tokenizer"]
    assert f"best  tokenizer {best}, validation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--text-file", "a.txt"], "--text-file makes no difference to tokenizer train"),
        (["train", "--vocab-size", "12"], "vocab_size must be at least 257"),
        (["compare"], "compare needs at least one tokenizer: got none; pass char, byte"),
        (["compare", "bpe"], "bpe needs a vocabulary's size"),
        (["compare", "char", "--out", "a"], "--out makes no difference to tokenizer compare"),
        (["compare", "nowhere.json"], "there is no file nowhere.json"),
        (["translate"], "'train' or 'compare': got 'translate'"),
    ],
)
def test_bad_input(arguments, said, capsys, text, monkeypatch):
    monkeypatch.chdir(text.parent)
    if arguments[0] == "train":
        arguments.insert(1, str(text))
    elif "nowhere.json" in arguments:
        arguments += ["--text-file", str(text)]
    assert main(["tokenizer", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_no_file_is_replaced(text, tmp_path, capsys):
    path = trained(tmp_path, text)
    before = path.read_bytes()
    capsys.readouterr()
    assert main(["tokenizer", "train", str(text), "--vocab-size", "270", "--out", str(path)]) == 2
    assert f"out must be a new file: {path} exists" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_data_of_any_size_with_subwords(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data, run = tmp_path / "a.jsonl", tmp_path / "run"
    lines = (json.dumps({"text": f"document {i} of some text, né"}) for i in range(400))
    data.write_text("\n".join(lines))
    arguments = ["train", "--data", str(data), *SIZES, "--tokenizer", "bpe:280", "--steps", "2"]
    assert main([*arguments, "--out", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--steps", "4"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    bits = read_metrics(run / "metrics.jsonl")[-1]["bits_per_byte"]
    assert figures["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert figures["bits_per_character"] is None
    assert main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    assert "bits per byte" in said
    assert "per character" not in said
