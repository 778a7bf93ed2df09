import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.files import FileFormatError
from functional_lm.models import build
from functional_lm.models.adapting import AdapterConfig, adapt, adapters_of, with_adapters
from functional_lm.runs import load_adapters, open_run, save_adapters, save_run
from functional_lm.text import CharTokenizer

SIZES = {"d_model": 12, "n_heads": 2, "n_layers": 1, "d_ff": 10, "max_seq_len": 6}
TOKENS = np.array([[1, 3, 5, 2, 0]])


def tuned(config, **sizes):
    model = build("llama", vocab_size=7, **SIZES | sizes)
    base = model.init((0,))
    adapted = with_adapters(model, config)
    params = pytree.map(lambda leaf: leaf + np.float32(0.1), adapt(adapted, base, (1,)))
    return model, base, adapted, params


def test_a_file_holds_the_adapters_alone(tmp_path):
    model, base, adapted, params = tuned(AdapterConfig(lora_rank=2, dora=True))
    save_adapters(tmp_path / "one", adapted, params)
    again, loaded = load_adapters(tmp_path / "one", model, base)
    expected, got = adapters_of(adapted, params), adapters_of(again, loaded)
    assert expected.keys() == got.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(got[path], leaf)
    assert (tmp_path / "one").stat().st_size < 12_000


@pytest.mark.parametrize(
    ("kind", "place"),
    [("prompt", "prompt.weight"), ("prefix", "blocks.0.mixer.prefix.keys")],
)
def test_adapters_of_two_files_add_up(tmp_path, kind, place):
    model, base, *first = tuned(AdapterConfig(lora_rank=2))
    save_adapters(tmp_path / "one", *first)
    save_adapters(tmp_path / "two", *tuned(AdapterConfig(adapter=kind, adapter_size=3))[2:])
    both, params = load_adapters(tmp_path / "two", *load_adapters(tmp_path / "one", model, base))
    assert "a" in params["blocks"][0]["mlp"]["up"]
    assert len(dict(pytree.leaves_with_path(params))[place]) == 3
    save_run(tmp_path / "run", params, both, CharTokenizer.train("abcdefg"))
    run = open_run(tmp_path / "run")
    np.testing.assert_array_equal(
        run.model.logits(run.params, TOKENS)[0], both.logits(params, TOKENS)[0]
    )


@pytest.mark.parametrize("sizes", [{"d_model": 16}, {"n_layers": 2}])
def test_adapters_of_another_model_are_refused(tmp_path, sizes):
    config = AdapterConfig(lora_rank=2)
    save_adapters(tmp_path / "one", *tuned(config)[2:])
    model, base, *_ = tuned(config, **sizes)
    with pytest.raises(FileFormatError, match="another model"):
        load_adapters(tmp_path / "one", model, base)
