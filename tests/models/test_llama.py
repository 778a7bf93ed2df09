import dataclasses
import json

import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.models import build, llama, transformer
from functional_lm.models.llama import PRESETS, Config

SIZES = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "n_layers": 2, "d_ff": 7, "max_seq_len": 11}
CONFIG = Config(13, **SIZES)
MODEL = llama.architecture(CONFIG)
PARAMS = transformer.init((0,), model=MODEL)
TOKENS = prng.integers((1,), (3, 11), low=0, high=13)


@pytest.mark.parametrize(
    ("preset", "count"), [("tiny", 763_136), ("small", 3_033_600), ("medium", 12_096_512)]
)
def test_presets_have_the_stated_number_of_parameters(preset, count):
    assert build("llama", vocab_size=65, **PRESETS[preset]).n_parameters == count


def test_the_count_is_that_of_real_parameters():
    tied = pytree.count(PARAMS)
    assert tied == build("llama", vocab_size=13, **SIZES).n_parameters
    untied = build("llama", vocab_size=13, **SIZES, tie_embeddings=False)
    assert untied.n_parameters == tied + 13 * 24
    assert pytree.count(untied.init((0,))) == untied.n_parameters


def test_leaves_are_named_as_in_files():
    shapes = {path: leaf.shape for path, leaf in pytree.leaves_with_path(PARAMS)}
    assert {path: shape for path, shape in shapes.items() if not path.startswith("blocks.1")} == {
        "blocks.0.mixer.out.weight": (24, 24),
        "blocks.0.mixer.qkv.weight": (24, (6 + 2 * 2) * 4),
        "blocks.0.mlp.down.weight": (7, 24),
        "blocks.0.mlp.up.weight": (24, 14),
        "blocks.0.norm1.scale": (24,),
        "blocks.0.norm2.scale": (24,),
        "embedding.weight": (13, 24),
        "norm.scale": (24,),
    }


def test_output_projections_shrink_with_depth():
    sizes = {"d_model": 200, "n_heads": 4, "d_ff": 300}
    deep, flat = (build("llama", vocab_size=13, **sizes, n_layers=n).init((0,)) for n in (8, 2))
    for layer, name in (("mixer", "out"), ("mlp", "down")):
        one, other = (params["blocks"][0][layer][name]["weight"] for params in (deep, flat))
        np.testing.assert_allclose(one / other, 0.5, rtol=1e-5)
    assert flat["blocks"][1]["mixer"]["out"]["weight"].std() == pytest.approx(
        0.5 * (2 / 400) ** 0.5, rel=0.02
    )


def test_no_two_leaves_are_drawn_alike():
    params = build("llama", vocab_size=13, **SIZES, tie_embeddings=False).init((0,))
    starts = [leaf.ravel()[:7] for leaf in pytree.leaves(params) if leaf.ndim > 1]
    directions = {tuple(np.round(start / np.abs(start).max(), 3)) for start in starts}
    assert len(directions) == len(starts)


def test_float32_and_float64_are_one_model():
    exact = transformer.init((0,), model=MODEL, dtype=np.float64)
    for a, b in zip(pytree.leaves(PARAMS), pytree.leaves(exact), strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float32))


def test_shapes_without_a_key_take_no_memory():
    huge = build("llama", vocab_size=10**6, d_model=2**14, n_heads=64, n_layers=4)
    assert huge.n_parameters > 2 * 10**10
    assert pytree.buffer_bytes(huge.init(None)) < 10**7


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"d_model": 16, "n_heads": 5}, ValueError, "got n_heads=5, d_model=16; try 4 or 8"),
        ({"n_heads": 4, "n_kv_heads": 3}, ValueError, "n_kv_heads must divide n_heads"),
        ({"d_model": 12, "n_heads": 4}, ValueError, "must be even .*got 3"),
        ({"n_layers": 0}, ValueError, "n_layers must be at least 1"),
        ({"n_layers": 2.0}, TypeError, "n_layers must be an integer: got 2.0"),
        ({"d_model": True}, TypeError, "d_model must be an integer: got True"),
        ({"d_model": 2**64}, ValueError, "d_model must be at most 16,777,216"),
        ({"dropout": 1.5}, ValueError, "dropout must lie in"),
        ({"norm_eps": -1.0}, ValueError, "norm_eps"),
        ({"rope_pairing": "other"}, ValueError, "'interleaved' or 'half'"),
        ({"tie_embeddings": 1}, TypeError, "tie_embeddings"),
        ({"remat": 1}, TypeError, "remat"),
        ({"attention": "flash"}, ValueError, "'auto' or 'materialised' or 'tiled'"),
        ({"n_layers": 0, "dropout": 2.0}, ValueError, r"(?s)n_layers.*\n.*dropout"),
    ],
)
def test_bad_settings_are_named(settings, error, says):
    with pytest.raises(error, match=says):
        Config(13, **settings)


def test_a_model_that_fits_no_machine_is_refused():
    with pytest.raises(ValueError, match="at most 1e\\+11 parameters: got"):
        build("llama", vocab_size=65, d_model=2**16, n_heads=2, n_layers=100)


def test_settings_not_given_stay_open_until_they_are_resolved():
    config = Config(13, d_model=50, n_heads=5)
    assert (config.n_kv_heads, config.d_ff, config.head_size, config.max_seq_len) == (None,) * 4
    resolved = config.resolved()
    assert (resolved.n_kv_heads, resolved.d_ff, resolved.head_size) == (5, 125, 10)
    assert resolved.resolved() == resolved
    assert dataclasses.replace(config, d_model=100).resolved().d_ff == 250


def test_settings_are_plain_numbers():
    config = Config(np.int64(13), dropout=np.float32(0.5), norm_eps=np.float64(1e-6))
    assert json.loads(json.dumps(dataclasses.asdict(config))) == dataclasses.asdict(config)


def test_heads_of_another_size_train_and_decode():
    model = build("llama", vocab_size=13, **SIZES, head_size=6)
    params = model.init((0,), dtype=np.float64)
    assert params["blocks"][0]["mixer"]["qkv"]["weight"].shape == (24, 10 * 6)
    loss, residuals = model.forward(params, TOKENS, targets=TOKENS)
    grads, _ = model.vjp(residuals, np.ones_like(loss))
    assert pytree.structure(grads) == pytree.structure(params)
