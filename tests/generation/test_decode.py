import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_lm.generation import (
    Decoder,
    generate,
    generate_batch,
    temperature,
    top_k,
    until_stop,
    window_start,
)
from functional_lm.models import build

MODEL = build("llama", vocab_size=13, d_model=24, n_heads=2, n_layers=1, max_seq_len=5)
PARAMS = MODEL.init((0,), dtype=np.float64)
PARAMS["norm"]["scale"] *= 20  # so that tokens differ in their chances


def next_logits(tokens):
    seen = tokens[window_start(len(tokens), 5) :]
    return MODEL.logits(PARAMS, seen)[0][-1]


def run(**settings):
    settings = {"key": (0,), "max_new_tokens": 20} | settings
    return list(generate(next_logits, [1, 2, 3], **settings))


def test_greedy_generation_is_deterministic():
    greedy = temperature(0)
    assert run(transform=greedy) == run(transform=greedy, key=(1,)) == run(transform=top_k(1))
    tokens = np.array([1, 2, 3])
    for token in run(transform=greedy):
        assert token == next_logits(tokens).argmax()
        tokens = np.append(tokens, token)


def test_sampling_follows_the_seed():
    assert run() == run()
    assert run() != run(key=(1,))
    assert all(0 <= token < 13 for token in run())


def test_every_token_has_its_own_key():
    flat = generate(lambda tokens: np.zeros(1000), [0], key=(0,), max_new_tokens=20)
    assert len(set(flat)) > 10


def test_it_streams():
    tokens = generate(next_logits, [1], key=(0,), max_new_tokens=10**9)
    assert next(tokens) == next(generate(next_logits, [1], key=(0,), max_new_tokens=1))


def test_an_empty_prompt_is_an_error():
    with pytest.raises(ValueError, match=r"at least one token: .*pass some text"):
        next(generate(next_logits, [], key=(0,), max_new_tokens=1))
    with pytest.raises(ValueError, match=r"at least one prompt: .*pass \[prompt\]"):
        next(generate_batch(next_logits, [], max_new_tokens=1))


@pytest.mark.parametrize("prompt", ["ROMEO:", b"ROMEO:"])
@pytest.mark.parametrize("model", [next_logits, Decoder(MODEL, PARAMS)], ids=["function", "cached"])
def test_a_text_for_a_prompt_says_how_to_encode_it(model, prompt):
    says = "must be token ids: got the text b?'ROMEO:'; pass tokenizer.encode"
    with pytest.raises(TypeError, match=says):
        next(generate(model, prompt, max_new_tokens=1))
    with pytest.raises(TypeError, match=says):
        next(generate_batch(model, prompt, max_new_tokens=1))


def test_without_a_key_it_is_greedy():
    assert run(key=None) == run(transform=temperature(0))
    assert run(key=None, transform=lambda logits, tokens: -logits) != run(key=None)


MODELS = [next_logits, Decoder(MODEL, PARAMS)]


@pytest.mark.parametrize("model", MODELS, ids=["uncached", "cached"])
def test_each_of_a_batch_is_as_it_is_alone(model):
    prompts = [[1], [2, 3, 4, 5, 6, 7, 8], [1]]
    keys = [(0,), None, (0, 0, 1)]
    transforms = [None, top_k(3), temperature(0.5)]
    settings = {"keys": keys, "max_new_tokens": 20, "transforms": transforms}
    rows = list(generate_batch(model, prompts, **settings))
    assert len(rows) == 20
    for i, tokens in enumerate(zip(*rows, strict=True)):
        alone = generate(model, prompts[i], key=keys[i], max_new_tokens=20, transform=transforms[i])
        assert list(tokens) == list(alone)


@pytest.mark.parametrize("model", MODELS, ids=["uncached", "cached"])
def test_a_batch_needs_one_key_and_one_transform_for_each(model):
    with pytest.raises(ValueError, match="one of keys for each of the 2 prompts: got 1"):
        next(generate_batch(model, [[1], [2]], keys=[(0,)], max_new_tokens=1))
    with pytest.raises(ValueError, match="one of transforms for each of the 1 prompts: got 2"):
        next(generate_batch(model, [[1]], transforms=[None, None], max_new_tokens=1))


@pytest.mark.parametrize("model", MODELS, ids=["uncached", "cached"])
def test_nothing_may_be_wanted(model):
    assert list(generate(model, [1], max_new_tokens=0)) == []


def test_a_decoder_streams():
    tokens = generate(MODELS[1], [1], max_new_tokens=10**9)
    assert next(tokens) == next(generate(MODELS[1], [1], max_new_tokens=1))


def test_a_transform_sees_all_tokens_before():
    lengths = []

    def transform(logits, tokens):
        lengths.append(len(tokens))
        return logits

    run(transform=transform, max_new_tokens=4)
    assert lengths == [3, 4, 5, 6]


@given(st.text(alphabet="abc"), st.lists(st.text(alphabet="abc", min_size=1), max_size=3))
def test_a_stream_equals_the_text_before_the_first_stop(text, stops):
    def first_stop(end):
        return [p for stop in stops if (p := text[:end].find(stop)) >= 0]

    expected = text
    for end in range(len(text) + 1):
        if first_stop(end):
            expected = text[: min(first_stop(end))]
            break
    assert "".join(until_stop(text, stops)) == expected


def test_a_part_of_a_stop_is_held_back():
    shown = []
    pieces = iter(["x", "\n", "\n", "y"])
    stream = until_stop(pieces, ["\n\n"])
    shown.append(next(stream))
    assert shown == ["x"]
    assert list(stream) == []
    assert next(pieces) == "y"


def test_an_empty_stop_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        list(until_stop("abc", [""]))
