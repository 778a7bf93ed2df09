import json

import chex
import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.files import FileFormatError
from functional_lm.models import build
from functional_lm.runs import load_checkpoint, open_run, save_checkpoint, save_run
from functional_lm.text import CharTokenizer

TOKENIZER = CharTokenizer.train("hello world")
MODEL = build("llama", vocab_size=TOKENIZER.vocab_size, d_model=16, n_heads=2, n_layers=11)
PARAMS = MODEL.init((0,))


@pytest.fixture
def run(tmp_path):
    save_run(tmp_path / "run", PARAMS, MODEL, TOKENIZER)
    return tmp_path / "run"


def test_a_run_comes_back(run):
    model, params, tokenizer, _ = open_run(run)
    assert (model.config, tokenizer) == (MODEL.config, TOKENIZER)
    assert pytree.structure(params) == pytree.structure(PARAMS)
    chex.assert_trees_all_equal(params, PARAMS)
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_arrays_that_are_not_contiguous_keep_their_values(tmp_path):
    flipped = pytree.map(lambda leaf: np.asfortranarray(leaf[..., ::-1]), PARAMS)
    save_run(tmp_path / "run", flipped, MODEL, TOKENIZER)
    chex.assert_trees_all_equal(open_run(tmp_path / "run").params, flipped)


def test_numbers_and_float64_come_back(tmp_path):
    tree = {"t": np.ones(()), "w": (np.arange(6.0).reshape(2, 3),)}
    save_checkpoint(tmp_path / "w.safetensors", tree)
    chex.assert_trees_all_equal(load_checkpoint(tmp_path / "w.safetensors", like=tree).tree, tree)
    exact = MODEL.init((0,), dtype=np.float64)
    save_run(tmp_path / "run", exact, MODEL, TOKENIZER)
    chex.assert_trees_all_equal(open_run(tmp_path / "run").params, exact)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold config"):
        open_run(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(run, file):
    data = (run / file).read_bytes()
    (run / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=file):
        open_run(run)


def test_files_of_different_runs_are_refused(run):
    (run / "tokenizer.json").write_text(CharTokenizer.train("abc").to_json())
    with pytest.raises(ValueError, match="its tokenizer has 3 tokens, its config 8"):
        open_run(run)


def test_an_unknown_setting_is_named(run):
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["n_heds"] = 3
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="n_heds"):
        open_run(run)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    import os

    def fail(source, target):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        save_run(tmp_path / "run", PARAMS, MODEL, TOKENIZER)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_config_that_lies_about_its_size_is_refused_before_anything_is_made(run):
    settings = json.loads((run / "config.json").read_text())
    settings["model"] |= {"d_model": 2**17, "n_heads": 1, "n_kv_heads": 1, "n_layers": 1, "d_ff": 1}
    settings["model"]["head_size"] = None
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(FileFormatError, match=r"has 68,721,311,744 parameters, more than the file"):
        open_run(run)
