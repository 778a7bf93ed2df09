import dataclasses

import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.models import llama, transformer
from functional_lm.testing import certify

test_certified = certify("transformer")

CONFIG = llama.Config(13, d_model=24, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=7, max_seq_len=11)
MODEL = llama.architecture(CONFIG)
PARAMS = transformer.init((0,), model=MODEL)
TOKENS = prng.integers((1,), (3, 11), low=0, high=13)


def changed(**settings):
    return llama.architecture(dataclasses.replace(CONFIG, **settings))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_before_a_changed_token_keep_their_bits(dtype):
    params = transformer.init((0,), model=MODEL, dtype=dtype)
    logits, _ = transformer.forward(params, TOKENS, model=MODEL)
    for t in range(11):
        others = TOKENS.copy()
        others[:, t] = (others[:, t] + 1) % 13
        after, _ = transformer.forward(params, others, model=MODEL)
        np.testing.assert_array_equal(after[:, :t], logits[:, :t])
        assert (after[:, t] != logits[:, t]).any()


def test_one_sequence_equals_a_batch_of_one():
    one, _ = transformer.forward(PARAMS, TOKENS[0], model=MODEL)
    batch, _ = transformer.forward(PARAMS, TOKENS[:1], model=MODEL)
    assert one.shape == (11, 13)
    np.testing.assert_array_equal(one, batch[0])


def test_no_key_means_no_dropout():
    model = changed(dropout=0.5)
    plain, _ = transformer.forward(PARAMS, TOKENS, model=MODEL)
    evaluated, _ = transformer.forward(PARAMS, TOKENS, model=model)
    trained, _ = transformer.forward(PARAMS, TOKENS, model=model, key=(0,))
    np.testing.assert_array_equal(plain, evaluated)
    assert (trained != plain).any()


def test_every_block_draws_its_own_dropout():
    _, residuals = transformer.forward(PARAMS, TOKENS, model=changed(dropout=0.5), key=(0,))
    masks = [residuals.dropout.multiplier]
    for block in residuals.blocks:
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
    ],
)
def test_bad_tokens_are_named(tokens, error, says):
    with pytest.raises(error, match=says):
        transformer.forward(PARAMS, tokens, model=MODEL)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_layers": 3}, "the 3 blocks of the model: got 2"),
        ({"vocab_size": 14}, r"embedding.weight must have shape .* make it 14"),
        ({"tie_embeddings": False}, "unembedding"),
        ({"n_heads": 12}, "queries, keys and values must have"),
    ],
)
def test_params_of_another_model_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        transformer.forward(PARAMS, TOKENS, model=changed(**settings))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"blocks": list(PARAMS["blocks"])}, TypeError, "must be a tuple: got list"),
        ({"embedding": np.zeros((13, 24))}, TypeError, "params must be a dict: got ndarray"),
    ],
)
def test_params_of_another_shape_are_named(change, error, says):
    with pytest.raises(error, match=says):
        transformer.forward({**PARAMS, **change}, TOKENS, model=MODEL)


@pytest.mark.parametrize("key", [3, [3], ()])
def test_a_bad_key_is_named(key):
    with pytest.raises((TypeError, ValueError), match="key must"):
        transformer.init(key, model=MODEL)
    with pytest.raises((TypeError, ValueError), match="key must"):
        transformer.forward(PARAMS, TOKENS, model=MODEL, key=key)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "settings",
    [{}, {"n_kv_heads": 1}, {"rope_pairing": "half"}, {"tie_embeddings": False}, {"head_size": 6}],
    ids=str,
)
def test_steps_equal_the_forward(settings, dtype):
    model = changed(**settings)
    params = pytree.map(lambda leaf: 3 * leaf, transformer.init((0,), model=model, dtype=dtype))
    logits, _ = transformer.forward(params, TOKENS, model=model)
    cache = model.init_cache(params, 3, 11)
    tolerance = 2e-5 if dtype == np.float32 else 1e-13
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 11)):
        found, cache = model.step(params, TOKENS[:, start:stop], cache)
        assert found.dtype == dtype
        error = np.abs(found - logits[:, stop - 1]).max()
        assert error <= tolerance * np.abs(logits).max()


def test_texts_of_other_lengths_step_side_by_side():
    params = transformer.init((0,), model=MODEL, dtype=np.float64)
    lengths = np.array([5, 1, 3])
    cache = MODEL.init_cache(params, 3, 11)
    found, cache = MODEL.step(params, TOKENS[:, :5], cache, lengths=lengths)
    more = TOKENS[:, 7:8]
    after, _ = MODEL.step(params, more, cache)
    for row, length in enumerate(lengths):
        text = np.append(TOKENS[row, :length], more[row])
        logits, _ = transformer.forward(params, text, model=MODEL)
        np.testing.assert_allclose(found[row], logits[-2], rtol=0, atol=1e-13)
        np.testing.assert_allclose(after[row], logits[-1], rtol=0, atol=1e-13)
