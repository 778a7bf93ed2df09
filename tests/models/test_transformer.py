import dataclasses
import json

import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.models import transformer
from functional_lm.models.transformer import PRESETS, Config
from functional_lm.testing import certify

test_certified = certify("transformer")

CONFIG = Config(13, d_model=24, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=7, max_seq_len=11)
PARAMS = transformer.init((0,), config=CONFIG)
TOKENS = prng.integers((1,), (3, 11), low=0, high=13)


@pytest.mark.parametrize(
    ("preset", "count"), [("tiny", 763_136), ("small", 3_033_600), ("medium", 12_096_512)]
)
def test_presets_have_the_stated_number_of_parameters(preset, count):
    params = transformer.init((0,), config=Config(65, **PRESETS[preset]))
    assert pytree.count(params) == count


@pytest.mark.parametrize(
    "change", [{}, {"n_heads": 4, "n_kv_heads": 2}, {"d_ff": 7, "n_layers": 3}]
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_config_counts_its_parameters(change, tied):
    config = Config(13, d_model=24, tie_embeddings=tied, **change)
    assert config.n_parameters == pytree.count(transformer.init((0,), config=config))


def test_untied_embeddings_add_one_table():
    untied = dataclasses.replace(CONFIG, tie_embeddings=False)
    params = transformer.init((0,), config=untied)
    assert pytree.count(params) == pytree.count(PARAMS) + 13 * 24


def test_leaves_are_named_as_in_files():
    paths = [path for path, _ in pytree.leaves_with_path(PARAMS)]
    assert "blocks.0.attention.qkv" in paths
    assert PARAMS["blocks"][0]["attention"]["qkv"].shape == (24, (6 + 2 * 2) * 4)
    assert PARAMS["blocks"][1]["mlp"]["gate_up"].shape == (2, 24, 7)


def test_output_projections_shrink_with_depth():
    deep = transformer.init((0,), config=Config(13, n_layers=8))
    flat = transformer.init((0,), config=Config(13, n_layers=2))
    for path in (("attention", "out"), ("mlp", "down")):
        ratio = deep["blocks"][0][path[0]][path[1]] / flat["blocks"][0][path[0]][path[1]]
        np.testing.assert_allclose(ratio, 0.5, rtol=1e-5)


def test_output_projections_have_the_stated_variance():
    config = Config(13, d_model=200, n_heads=4, n_layers=3, d_ff=300)
    block = transformer.init((0,), config=config)["blocks"][1]
    depth = (2 * 3) ** -0.5
    assert block["attention"]["out"].std() == pytest.approx(depth * (2 / 400) ** 0.5, rel=0.02)
    assert block["mlp"]["down"].std() == pytest.approx(depth * (2 / 500) ** 0.5, rel=0.02)


def test_no_two_leaves_are_drawn_alike():
    params = transformer.init((0,), config=dataclasses.replace(CONFIG, tie_embeddings=False))
    starts = [leaf.ravel()[:7] for leaf in pytree.leaves(params) if leaf.ndim > 1]
    directions = {tuple(np.round(start / np.abs(start).max(), 3)) for start in starts}
    assert len(directions) == len(starts)


def test_float32_and_float64_are_one_model():
    exact = transformer.init((0,), config=CONFIG, dtype=np.float64)
    for a, b in zip(pytree.leaves(PARAMS), pytree.leaves(exact), strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_before_a_changed_token_keep_their_bits(dtype):
    params = transformer.init((0,), config=CONFIG, dtype=dtype)
    logits, _ = transformer.forward(params, TOKENS, config=CONFIG)
    for t in range(11):
        changed = TOKENS.copy()
        changed[:, t] = (changed[:, t] + 1) % 13
        after, _ = transformer.forward(params, changed, config=CONFIG)
        np.testing.assert_array_equal(after[:, :t], logits[:, :t])
        assert (after[:, t] != logits[:, t]).any()


def test_one_sequence_equals_a_batch_of_one():
    one, _ = transformer.forward(PARAMS, TOKENS[0], config=CONFIG)
    batch, _ = transformer.forward(PARAMS, TOKENS[:1], config=CONFIG)
    assert one.shape == (11, 13)
    np.testing.assert_array_equal(one, batch[0])


def test_no_key_means_no_dropout():
    config = dataclasses.replace(CONFIG, dropout=0.5)
    plain, _ = transformer.forward(PARAMS, TOKENS, config=CONFIG)
    evaluated, _ = transformer.forward(PARAMS, TOKENS, config=config)
    trained, _ = transformer.forward(PARAMS, TOKENS, config=config, key=(0,))
    np.testing.assert_array_equal(plain, evaluated)
    assert (trained != plain).any()


def test_every_block_draws_its_own_dropout():
    config = dataclasses.replace(CONFIG, dropout=0.5)
    _, residuals = transformer.forward(PARAMS, TOKENS, config=config, key=(0,))
    masks = [residuals.backbone.dropout.multiplier]
    for block in residuals.backbone.blocks:
        masks += [block.dropout1.multiplier, block.dropout2.multiplier]
    assert len({mask.tobytes() for mask in masks}) == 5


@pytest.mark.parametrize(
    ("tokens", "error", "says"),
    [
        (np.zeros((1, 12), int), ValueError, "max_seq_len=11 long: got 12"),
        (np.full((2, 3), -1), ValueError, r"got -1 at position \(0, 0\)"),
        (np.array([0, 13]), ValueError, "got 13 at position"),
        (np.zeros((2, 3), bool), TypeError, "bool"),
        (np.zeros((2, 3, 4), int), ValueError, r"\(T,\) or \(B, T\)"),
        ([[0, 1]], TypeError, "list"),
    ],
)
def test_bad_tokens_are_named(tokens, error, says):
    with pytest.raises(error, match=says):
        transformer.forward(PARAMS, tokens, config=CONFIG)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_layers": 3}, "n_layers=3 blocks: got 2"),
        ({"vocab_size": 14}, r"embedding.weight must have shape .* make it 14"),
        ({"tie_embeddings": False}, "unembedding"),
        ({"n_heads": 12}, "qkv must have shape"),
    ],
)
def test_params_of_another_config_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        transformer.forward(PARAMS, TOKENS, config=dataclasses.replace(CONFIG, **changes))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"d_model": 16, "n_heads": 5}, ValueError, "got n_heads=5, d_model=16; try 4 or 8"),
        ({"n_heads": 4, "n_kv_heads": 3}, ValueError, "n_kv_heads must divide n_heads"),
        ({"d_model": 12, "n_heads": 4}, ValueError, "must be even .*got 12/4"),
        ({"n_layers": 0}, ValueError, "n_layers must be at least 1"),
        ({"n_layers": 2.0}, TypeError, "n_layers must be an integer: got 2.0"),
        ({"d_model": True}, TypeError, "d_model must be an integer: got True"),
        ({"dropout": 1.5}, ValueError, "dropout must lie in"),
        ({"norm_eps": -1.0}, ValueError, "norm_eps"),
        ({"rope_pairing": "other"}, ValueError, "'interleaved' or 'half'"),
        ({"tie_embeddings": 1}, TypeError, "tie_embeddings"),
        ({"remat": 1}, TypeError, "remat"),
        ({"attention": "flash"}, ValueError, "'auto' or 'materialised' or 'tiled'"),
    ],
)
def test_bad_settings_are_named(settings, error, says):
    with pytest.raises(error, match=says):
        Config(13, **settings)


def test_settings_not_given_are_resolved():
    config = Config(13, d_model=50, n_heads=5)
    assert (config.n_kv_heads, config.d_ff) == (5, 125)
    wider = dataclasses.replace(config, d_model=100, d_ff=None)
    assert wider.d_ff == 250


def test_the_defaults():
    assert Config(65) == Config(
        65,
        d_model=128,
        n_heads=4,
        n_kv_heads=4,
        n_layers=4,
        d_ff=320,
        max_seq_len=256,
        dropout=0.0,
        tie_embeddings=True,
        norm_eps=1e-6,
        rope_theta=10000.0,
        rope_pairing="interleaved",
        attention="auto",
        remat=False,
    )


def test_settings_are_plain_numbers():
    config = Config(np.int64(13), dropout=np.float32(0.5), norm_eps=np.float64(1e-6))
    assert json.loads(json.dumps(dataclasses.asdict(config))) == dataclasses.asdict(config)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"blocks": list(PARAMS["blocks"])}, TypeError, "must be a tuple: got list"),
        ({"embedding": np.zeros((13, 24))}, TypeError, "params must be a dict: got ndarray"),
        ({"head": {}}, ValueError, "head"),
    ],
)
def test_params_of_another_shape_are_named(change, error, says):
    with pytest.raises(error, match=says):
        transformer.forward({**PARAMS, **change}, TOKENS, config=CONFIG)


@pytest.mark.parametrize("key", [3, [3], ()])
def test_a_bad_key_is_named(key):
    with pytest.raises((TypeError, ValueError), match="key must"):
        transformer.init(key, config=CONFIG)
    with pytest.raises((TypeError, ValueError), match="key must"):
        transformer.forward(PARAMS, TOKENS, config=CONFIG, key=key)
