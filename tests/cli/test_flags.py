import json
from pathlib import Path

import pytest

from functional_lm import models
from functional_lm.cli.find_lr import FindLr
from functional_lm.cli.flags import read_settings
from functional_lm.cli.main import main
from functional_lm.cli.parser import parse
from functional_lm.cli.sweep import Sweep
from functional_lm.cli.train import Train
from functional_lm.files import FileFormatError
from functional_lm.runs import open_run

BAD = {
    "list.json": ("[1]", "must hold settings by name: got a list"),
    "no.json": ("{", "must hold JSON: Expecting"),
    "twice.json": ('{"lr": 1, "lr": 2}', "the name 'lr' twice"),
    "nan.json": ('{"lr": NaN}', "JSON has no NaN"),
    "deep.json": ('{"a":' * 9999, "deeper than 200"),
    "no.toml": ('{"lr": 1}', "must hold TOML: .* or let its name end in .json"),
    "deep.toml": ("a = " + "[" * 9999, "deeper than 200"),
    "file.toml": ("text-file = 5", "must give text_file as a string: got int"),
    "out.json": ('{"training": {"out": "a"}}', "cannot set out; remove that, and pass .* --out"),
    "resume.toml": ('resume = "run"', "cannot set resume"),
    "overwrite.toml": ("overwrite = true", "cannot set overwrite"),
    "trust.toml": ("trust-model = true", "cannot set trust_model"),
    "outside.json": ('{"text": {"model": "../m.py:m"}}', "must name a model in its folder: got /"),
    "model.json": ('{"model_file": "a.py"}', "must say the name of its model_file"),
    "name.json": ('{"model_file": {"name": 3}}', "must say the name of its model_file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_the_file(tmp_path, capsys, name):
    content, says = BAD[name]
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(FileFormatError, match=says) as caught:
        read_settings(path)
    assert caught.value.path == path
    assert main(["train", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"functional-lm train: {path} ")
    assert len(said.splitlines()) == 1


def test_tables_are_merged_and_what_is_no_setting_left_out(tmp_path):
    path = tmp_path / "config.json"
    content = {
        "model": {"n_heads": 2, "vocab_size": 9},
        "text": {"text_file": "a", "sha256": "0"},
        "model_file": {"name": "net", "from": "/b.py", "files": {}},
        "n-layers": 3,
    }
    path.write_text(json.dumps(content))
    assert read_settings(path, trust_model=True) == {
        "n_heads": 2,
        "text_file": Path("a"),
        "model": f"{tmp_path / 'model.py'}:net",
        "n_layers": 3,
    }


@pytest.fixture
def settings(tmp_path):
    """Return a function that parses flags, with settings in a file, and returns all values."""

    def values(flags, file="", command=Train):
        path = tmp_path / "settings.toml"
        path.write_text(file)
        parsed = parse(command, ["--config", str(path), *flags.split()], program="functional-lm")
        groups = [parsed.model, parsed.sizes, parsed.source, parsed.training]
        return {k: v for group in [*groups, parsed] for k, v in vars(group).items()}

    return values


PRESET = "preset = 'small'\nn-layers = 1\n[training]\nlr = 0.5\nseed = 7"


@pytest.mark.parametrize(
    ("file", "flags", "expected"),
    [
        ("", "", {"d_model": 128, "lr": None, "steps": None, "out": None}),
        ("", "--preset small --n-heads=4", {"d_model": 256, "n_heads": 4}),
        (PRESET, "--seed 3", {"d_model": 256, "n_layers": 1, "lr": 0.5, "seed": 3}),
        (PRESET, "--preset medium --d-model 64", {"d_model": 64, "n_heads": 8, "n_layers": 4}),
        ("recipe = 'best'\nlr = 0.5", "--adam-lr 1e-3",
         {"convolution": 4, "optimizer": "muon", "lr": 0.5, "adam_lr": 1e-3}),
        ("", "--recipe best --model llama --preset small",
         {"optimizer": "muon", "init_scale": 0.8, "d_model": 256}),
        ("steps = 20", "--epochs 1", {"epochs": 1, "steps": None}),
        ("epochs = 2", "--steps 5", {"epochs": None, "steps": 5}),
        ("corpus = 'stdlib'", "--text-file a", {"text_file": Path("a"), "corpus": None}),
        ("text_file = 'a'\nencoding = 'latin-1'", "--corpus stdlib",
         {"text_file": None, "encoding": "utf-8", "corpus": "stdlib"}),
        ("text_file = 'a'\nencoding = 'latin-1'", "--text-file b",
         {"text_file": Path("b"), "encoding": "utf-8"}),
        ("n_kv_heads = 1\nd_ff = 7\nmax_seq_len = 30", "--seq-len 8",
         {"n_kv_heads": 1, "d_ff": 7, "max_seq_len": 30, "seq_len": 8}),
        ("max_seq_len = 30\nseq_len = 30", "--seq-len 40", {"max_seq_len": None, "seq_len": 40}),
        ("n_kv_heads = 1\ntie_embeddings = false", "--n-kv-heads None --tie-embeddings",
         {"n_kv_heads": None, "tie_embeddings": True}),
        ("log-every = 5", "--out a", {"out": Path("a"), "log_every": 5}),
        ("", "a.txt --steps 1e3 --batch_size=1_0 --seq-len 2k --no-tie-embeddings",
         {"text_file": Path("a.txt"), "steps": 1000, "batch_size": 10, "seq_len": 2000,
          "tie_embeddings": False}),
    ],
)  # fmt: skip
def test_a_flag_overrides_a_preset_and_that_a_file_and_that_a_recipe(
    settings, file, flags, expected
):
    values = settings(flags, file)
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize("command", [Sweep, FindLr])
def test_other_commands_take_the_settings_of_a_run(settings, command):
    file = "lr = 1e-2\nmin_lr = 1e-3\nsteps = 9\neval_every = 7\nlog_every = 7\nseed = 5"
    assert settings("", file, command)["seed"] == 5


ARCHITECTURE = """
import dataclasses
from functional_lm.compose import bind, serial
from functional_lm.layers import embedding, unembedding

@dataclasses.dataclass(frozen=True)
class Config:
    \"\"\"The settings.

    Attributes:
        vocab_size: V.
        width: of the table, in numbers.
        max_seq_len: T.
    \"\"\"
    vocab_size: int
    width: int | None = None
    max_seq_len: int | None = None

    def resolved(self):
        return dataclasses.replace(self, width=self.width or 3, max_seq_len=self.max_seq_len or 9)

PRESETS = {"wide": {"width": 50}}

def architecture(config):
    table = bind(embedding, vocab_size=config.vocab_size, d_model=config.width)
    return serial(
        table=table, out=bind(unembedding, vocab_size=config.vocab_size, d_model=config.width)
    )
"""


def test_an_architecture_brings_its_own_flags(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tables.py").write_text(ARCHITECTURE)
    assert main(["train", "--model", "tables.py", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Of the table, in numbers" in said
    assert "--preset wide" in said
    assert "--n-heads" not in said
    assert "--vocab-size" not in said
    flags = "--model tables.py --preset wide --steps 1 --batch-size 2 --seq-len 8 --out run"
    assert main(["train", "--text-file", str(text), *flags.split()]) == 0
    assert open_run("run").model.config.width == 50
    more = ["--config", "run/config.json", "--width", "None", "--seq-len", "6", "--out", "again"]
    assert main(["train", *more]) == 0
    config = open_run("again").model.config
    assert (config.width, config.max_seq_len) == (3, 6)


def test_every_architecture_of_the_package_has_flags_and_presets(settings):
    for name in models.architectures():
        for preset in models.find(name).PRESETS:
            assert settings(f"--model {name} --preset {preset}")["preset"] == preset
