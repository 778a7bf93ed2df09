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
    model, params, tokenizer, *_ = open_run(run)
    assert (model.config, tokenizer) == (MODEL.config, TOKENIZER)
    assert pytree.structure(params) == pytree.structure(PARAMS)
    chex.assert_trees_all_equal(params, PARAMS)
    exact = MODEL.init((0,), dtype=np.float64)
    save_run(run, exact, MODEL, TOKENIZER)
    chex.assert_trees_all_equal(open_run(run).params, exact)
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(run, file):
    data = (run / file).read_bytes()
    (run / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=file):
        open_run(run)


def test_a_setting_that_is_newer_than_the_run_has_its_default(run):
    weights = load_checkpoint(run / "model.safetensors")
    del weights.metadata["config"]["norm_eps"]
    save_checkpoint(run / "model.safetensors", weights.tree, metadata=weights.metadata)
    settings = json.loads((run / "config.json").read_text())
    del settings["model"]["norm_eps"]
    (run / "config.json").write_text(json.dumps(settings))
    assert open_run(run).model.config == MODEL.config
    settings["model"]["norm_eps"] = 0.1
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(FileFormatError, match="is of another config"):
        open_run(run)


def test_files_of_different_runs_are_refused(run):
    (run / "tokenizer.json").write_text(CharTokenizer.train("abc").to_json())
    with pytest.raises(ValueError, match="its tokenizer has 3 tokens, its config 8"):
        open_run(run)


HUGE = {"d_model": 2**17, "n_heads": 1, "n_kv_heads": 1, "n_layers": 1, "d_ff": 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_heds": 3}, "n_heds"),
        # refused before anything is made
        (HUGE | {"head_size": None}, r"has 68,721,311,744 parameters, more than the file"),
    ],
)
def test_a_config_of_another_model_is_refused(run, changes, says):
    settings = json.loads((run / "config.json").read_text())
    settings["model"] |= changes
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(FileFormatError, match=says):
        open_run(run)
