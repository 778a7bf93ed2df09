import chex
import numpy as np
import pytest

from functional_lm import prng
from functional_lm.compose import serial
from functional_lm.generation import Decoder, window_start
from functional_lm.layers import embedding, unembedding
from functional_lm.models import language_model, transformer
from functional_lm.models.transformer import Config
from functional_lm.testing import check_vjp
from functional_lm.training import Objective

CONFIG = Config(13, d_model=24, n_heads=2, n_layers=2, max_seq_len=8, dropout=0.2)
TOKENS = prng.integers((1,), (3, 9), low=0, high=13)
X, Y = TOKENS[:, :-1], TOKENS[:, 1:]


def test_of_the_transformer_it_is_the_language_model_bit_for_bit():
    objective = Objective(transformer, CONFIG)
    params = objective.init((0,))
    chex.assert_trees_all_equal(params, language_model.init((0,), config=CONFIG))
    loss, residuals = objective.forward(params, X, targets=Y, key=(5,))
    expected, expected_residuals = language_model.forward(
        params, X, targets=Y, config=CONFIG, key=(5,)
    )
    assert loss == expected
    one = np.ones_like(loss)
    chex.assert_trees_all_equal(
        objective.vjp(residuals, one)[0], language_model.vjp(expected_residuals, one)[0]
    )


def test_a_model_gets_what_it_names():
    seen = {}

    class Model:
        @staticmethod
        def init(key, *, vocab_size, d_model, dtype):
            seen["init"] = (vocab_size, d_model, dtype)
            return embedding.init(key, vocab_size=vocab_size, d_model=vocab_size, dtype=dtype)

        @staticmethod
        def forward(params, tokens, *, positions, n_heads, key):
            seen["forward"] = (positions.tolist(), n_heads, key)
            return embedding.forward(params, tokens)

        vjp = staticmethod(embedding.vjp)

    objective = Objective(Model, CONFIG)
    params = objective.init((0,), dtype=np.float64)
    loss, _ = objective.forward(params, X, targets=Y, key=(5,))
    assert seen == {"init": (13, 24, np.float64), "forward": (list(range(8)), 2, (5,))}
    assert loss.dtype == np.float64


def test_its_gradient_is_the_difference_quotient():
    objective = Objective(serial(embedding=embedding, unembedding=unembedding), CONFIG)
    params = objective.init((0,), dtype=np.float64)
    check_vjp(objective, params, X, targets=Y).raise_if_failed()


def test_next_logits_look_back_as_far_as_the_window_does():
    objective = Objective(transformer, CONFIG)
    params = objective.init((0,))
    for tokens in (TOKENS[0, :5], TOKENS.ravel()):
        seen = tokens[window_start(len(tokens), 8) :]
        logits, _ = transformer.forward(params, seen, config=CONFIG)
        np.testing.assert_array_equal(objective.next_logits(params, tokens), logits[-1])


def test_the_transformer_decodes_with_a_cache_and_others_without():
    objective = Objective(transformer, CONFIG)
    assert isinstance(objective.decoder(objective.init((0,))), Decoder)
    other = Objective(serial(embedding=embedding, unembedding=unembedding), CONFIG)
    params = other.init((0,))
    logits = other.decoder(params)(TOKENS[0])
    np.testing.assert_array_equal(logits, other.next_logits(params, TOKENS[0]))


def test_a_model_that_returns_no_logits_is_named():
    objective = Objective(serial(embedding=embedding), CONFIG)
    with pytest.raises(ValueError, match=r"\(B, T, V\) = \(3, 8, 13\): got \(3, 8, 24\)"):
        objective.forward(objective.init((0,)), X, targets=Y)
