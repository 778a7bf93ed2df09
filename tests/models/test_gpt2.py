import numpy as np
import pytest

from functional_lm import prng, pytree, value_and_grad
from functional_lm.generation import Decoder, generate
from functional_lm.models import build
from functional_lm.models.gpt2 import PRESETS, Config
from functional_lm.optimizers import adamw, apply_updates

SIZES = {"vocab_size": 13, "d_model": 24, "n_heads": 6, "n_layers": 2, "d_ff": 7, "max_seq_len": 9}
MODEL = build("gpt2", **SIZES)
TOKENS = prng.integers((1,), (3, 9), low=0, high=13)


def test_the_smallest_of_the_paper_has_124_million_parameters():
    assert build("gpt2", vocab_size=50257, **PRESETS["gpt2"]).n_parameters == 124_439_808


def test_leaves_have_biases_and_positions():
    shapes = {path: leaf.shape for path, leaf in pytree.leaves_with_path(MODEL.init((0,)))}
    assert {path: shape for path, shape in shapes.items() if not path.startswith("blocks.1")} == {
        "blocks.0.mixer.out.bias": (24,),
        "blocks.0.mixer.out.weight": (24, 24),
        "blocks.0.mixer.qkv.bias": (72,),
        "blocks.0.mixer.qkv.weight": (24, 72),
        "blocks.0.mlp.down.bias": (24,),
        "blocks.0.mlp.down.weight": (7, 24),
        "blocks.0.mlp.up.bias": (7,),
        "blocks.0.mlp.up.weight": (24, 7),
        "blocks.0.norm1.bias": (24,),
        "blocks.0.norm1.scale": (24,),
        "blocks.0.norm2.bias": (24,),
        "blocks.0.norm2.scale": (24,),
        "embedding.weight": (13, 24),
        "norm.bias": (24,),
        "norm.scale": (24,),
        "positions.weight": (9, 24),
    }


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"d_model": 16, "n_heads": 5}, "n_heads must divide d_model"),
        ({"n_layers": 0, "dropout": 2.0}, r"(?s)n_layers must be at least 1.*\n.*dropout must lie"),
        ({"attention": "flash"}, "'auto' or 'materialised' or 'tiled'"),
    ],
)
def test_bad_settings_are_named(settings, says):
    with pytest.raises(ValueError, match=says):
        Config(13, **settings)


def test_the_hidden_size_is_four_times_that_of_the_model():
    assert Config(13, d_model=24, n_heads=2).resolved().d_ff == 96


@pytest.mark.parametrize("texts", [1, 3])
def test_it_decodes_with_a_cache_beyond_its_longest_text(texts):
    params = pytree.map(lambda leaf: 5 * leaf, MODEL.init((0,), dtype=np.float64))
    decoder = Decoder(MODEL, params)
    assert decoder.cached
    tokens = [list(TOKENS[row, : row + 2]) for row in range(texts)]
    logits = decoder.prefill(tokens)
    for step in range(20):
        for row, text in enumerate(tokens):
            start = 0 if len(text) <= 9 else -(-(len(text) - 9) // 4) * 4  # see window_start
            expected, _ = MODEL.logits(params, np.array([text[start:]]))
            np.testing.assert_allclose(logits[row], expected[0, -1], rtol=0, atol=1e-12)
        new = [(3 * step + row) % 13 for row in range(texts)]
        tokens = [[*text, token] for text, token in zip(tokens, new, strict=True)]
        logits = decoder.step(new)


def test_it_learns_a_repeating_sequence():
    model = build("gpt2", vocab_size=7, d_model=32, n_heads=2, n_layers=2, max_seq_len=16)
    params = model.init((0,))
    sequence = np.tile(np.array([3, 1, 4, 1, 5, 2, 6]), 20)
    optimizer = adamw(3e-3)
    state = optimizer.init(params)
    for step in range(150):
        start = prng.integers((1, step), (8, 1), low=0, high=100)
        window = sequence[start + np.arange(17)]
        _, grads = value_and_grad(model, params, window[:, :-1], targets=window[:, 1:])
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
    assert list(generate(Decoder(model, params), [5, 2, 6], max_new_tokens=7)) == [
        3, 1, 4, 1, 5, 2, 6
    ]  # fmt: skip
