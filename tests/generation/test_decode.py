import numpy as np
import pytest

from functional_lm.generation import generate
from functional_lm.models import transformer

CONFIG = transformer.Config(13, d_model=24, n_heads=2, n_layers=1, max_seq_len=5)
PARAMS = transformer.init((0,), config=CONFIG)


def next_logits(tokens):
    return transformer.forward(PARAMS, tokens[-5:], config=CONFIG)[0][-1] * 20


def run(**settings):
    settings = {"key": (0,), "max_new_tokens": 20} | settings
    return list(generate(next_logits, [1, 2, 3], **settings))


def test_greedy_generation_is_deterministic():
    assert run(temperature=0) == run(temperature=0, key=(1,)) == run(top_k=1)
    tokens = np.array([1, 2, 3])
    for token in run(temperature=0):
        assert token == next_logits(tokens).argmax()
        tokens = np.append(tokens, token)


def test_sampling_follows_the_seed():
    assert run() == run()
    assert run() != run(key=(1,))
    assert all(0 <= token < 13 for token in run())


def test_it_streams():
    tokens = generate(next_logits, [1], key=(0,), max_new_tokens=10**9)
    assert next(tokens) == next(generate(next_logits, [1], key=(0,), max_new_tokens=1))


def test_an_empty_prompt_is_an_error():
    with pytest.raises(ValueError, match=r"at least one token: .*pass some text"):
        next(generate(next_logits, [], key=(0,), max_new_tokens=1))
