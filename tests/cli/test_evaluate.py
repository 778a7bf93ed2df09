import dataclasses
import json
import math
from typing import ClassVar

import numpy as np
import pytest

from functional_lm.cli.main import main
from functional_lm.runs import Session, read_metrics
from functional_lm.text import TOKENIZERS
from functional_lm.training import Experiment, TrainConfig

SMALL = ["--batch-size", "4", "--d-model", "16", "--n-heads", "2"]


def evaluate(run_folder, capsys, *arguments):
    assert main(["evaluate", str(run_folder), "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_validation_loss_is_that_of_training(run_folder, capsys):
    figures = evaluate(run_folder, capsys)
    assert list(figures) == ["loss", "perplexity", "bits_per_byte", "bits_per_character"]
    measured = [
        r["val_loss"] for r in read_metrics(run_folder / "metrics.jsonl") if "val_loss" in r
    ]
    assert figures["loss"] == pytest.approx(min(measured), rel=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2))
    assert figures["bits_per_byte"] == figures["bits_per_character"]  # in ASCII


def test_parts_and_other_texts(run_folder, capsys, tmp_path):
    training = evaluate(run_folder, capsys, "--part", "training")
    everything = evaluate(run_folder, capsys, "--part", "all")
    assert training["loss"] != everything["loss"]
    other = tmp_path / "other.txt"
    other.write_text("zzzzz qqqqq xxxxx " * 20)
    assert evaluate(run_folder, capsys, "--text-file", str(other))["loss"] > everything["loss"]


def test_a_part_of_another_text_is_refused(run_folder, text, capsys):
    arguments = ["--part", "all", "--text-file", str(text)]
    assert main(["evaluate", str(run_folder), *arguments]) == 2
    assert "got --part all and --text-file" in capsys.readouterr().err


def test_the_table(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--seq-len", "8"]) == 0
    said = capsys.readouterr().out
    assert "180 tokens, windows of 8" in said
    assert "bits per character" in said


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe:280", "wordpiece:50"])
def test_the_units_of_a_text(tokenizer, tmp_path, capsys):
    text, other = tmp_path / "text.txt", tmp_path / "other.txt"
    text.write_text("Größe und Maß, äöü. " * 90)
    other.write_text("äßäßäß " * 60)
    assert (
        main(
            [
                "train",
                str(text),
                *SMALL,
                "--steps",
                "1",
                "--tokenizer",
                tokenizer,
                "--seq-len",
                "4",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    capsys.readouterr()
    figures = evaluate(tmp_path / "run", capsys, "--text-file", str(other))
    assert figures["bits_per_character"] / figures["bits_per_byte"] == pytest.approx(
        13 / 7, abs=0.03
    )
    validated = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    figures = evaluate(tmp_path / "run", capsys)
    for name, value in {"loss": "val_loss", "bits_per_byte": "bits_per_byte"}.items():
        assert figures[name] == pytest.approx(validated[value], rel=1e-6)


def test_its_windows_are_those_of_the_training(train, tmp_path, capsys):
    out = tmp_path / "longer"
    assert train(out, "--max-seq-len", "32") == 0
    capsys.readouterr()
    measured = read_metrics(out / "metrics.jsonl")[-1]["val_loss"]
    assert evaluate(out, capsys)["loss"] == pytest.approx(measured, rel=1e-6)


def test_a_text_that_has_changed_is_refused(run_folder, capsys, text):
    text.write_text(text.read_text() + "more")
    assert main(["evaluate", str(run_folder)]) == 2
    assert "is not the text that" in capsys.readouterr().err


@dataclasses.dataclass(frozen=True)
class Pairs:
    """One token for each pair of characters."""

    kind: ClassVar[str] = "pairs"
    unit: ClassVar[str] = "pair"

    pairs: tuple[str, ...]

    @property
    def vocab_size(self):
        return len(self.pairs)

    @property
    def default_prompt(self):
        return self.pairs[0]

    end_of_text, losses = None, ()

    @property
    def token_bytes(self):
        return np.array([len(pair) for pair in self.pairs])

    def sized(self, text):
        return (tokens := self.encode(text)), self.token_bytes[tokens]

    def encode(self, text):
        pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
        return np.array([self.pairs.index(pair) for pair in pairs], np.int32)

    def decode(self, tokens):
        return "".join(self.stream(tokens))

    def stream(self, tokens):
        return (self.pairs[token] for token in tokens)

    def to_json(self):
        return json.dumps({"type": self.kind, "pairs": self.pairs})

    @classmethod
    def from_data(cls, data):
        return cls(tuple(data["pairs"]))


def test_nothing_counts_on_characters(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TOKENIZERS, "pairs", Pairs)
    content = text.read_text()
    pairs = Pairs(tuple(sorted({content[i : i + 2] for i in range(0, len(content), 2)})))
    settings = TrainConfig(steps=2, batch_size=2, seq_len=16)
    experiment = Experiment.build(content, settings, sizes={"d_model": 16}, tokenizer=pairs)
    with Session.start(tmp_path / "run", experiment) as session:
        assert len(list(session.train())[-1]["sample"]) > 300
    figures = evaluate(tmp_path / "run", capsys, "--text-file", str(text))
    assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2) / 2)
    for flags in ([], ["--num-samples", "2"]):
        arguments = ["--prompt", "quick ", "--max-new-tokens", "10", *flags]
        assert main(["generate", str(tmp_path / "run"), *arguments]) == 0
    assert len(capsys.readouterr().out.splitlines()[0]) > 20
