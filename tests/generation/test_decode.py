import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_lm import prng, pytree
from functional_lm.generation import (
    Decoder,
    chain,
    drafts,
    generate,
    generate_batch,
    repetition_penalty,
    temperature,
    top_k,
    until_stop,
    window_start,
)
from functional_lm.models import build
from functional_lm.numerics import softmax

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


ARCHITECTURES = {
    "llama": ("llama", {"n_kv_heads": 2}),
    "half": ("llama", {"rope_pairing": "half", "tie_embeddings": False}),
    "documents": ("llama", {"boundary": 3}),
    "gpt2": ("gpt2", {}),
    "window": ("hybrid", {"window": 4, "full_every": 2}),
    "latent": ("hybrid", {"mixer": "multi_latent_attention"}),
    "mamba2": ("hybrid", {"mixer": "mamba2", "convolution": 3}),
    "delta": ("hybrid", {"mixer": "gated_delta_rule", "full_every": 2}),
}


def speaking(name, *, loud=40.0, vocab_size=7, max_seq_len=24, **changes):
    """Return a decoder in float64 whose texts wander before they repeat themselves."""
    sizes = {"d_model": 24, "n_heads": 4, "n_layers": 2, "max_seq_len": max_seq_len}
    model = build(name, vocab_size=vocab_size, **sizes | changes)
    params = model.init((3,), dtype=np.float64)
    louder = {"embedding.weight": loud, "unembedding.weight": loud}
    return Decoder(model, pytree.map_with_path(lambda path, x: x * louder.get(path, 2.0), params))


@pytest.fixture
def eager(monkeypatch):
    """Draft wherever there is a guess."""
    monkeypatch.setattr(drafts, "LOOK_UP", 2)
    monkeypatch.setattr(Decoder, "pass_time", (0.5, 0.1))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_drafts_change_no_token(name, eager):
    """In float64 no two logits agree to rounding; the window moves on the way."""
    kind, changes = ARCHITECTURES[name]
    decoder, prompt = speaking(kind, **changes), [1, 2, 3, 1, 2, 3, 1]
    warm = chain(repetition_penalty(1.1), temperature(0.4), top_k(4))
    for settings in ({}, {"key": (0,)}, {"key": (1,), "transform": warm}, {"transform": warm}):
        plain = list(generate(decoder, prompt, max_new_tokens=60, speculate=0, **settings))
        assert decoder.drafted == 0 or settings
        assert list(generate(decoder, prompt, max_new_tokens=60, **settings)) == plain
    assert 0 < decoder.accepted < decoder.drafted


def scripted(monkeypatch, draws):
    """Let `sample` draw these numbers, one for each token."""
    monkeypatch.setattr(prng, "uniform", lambda key: draws[key[-1]])


def chances(decoder, text):
    return softmax(decoder.prefill([text])[0])


def test_every_text_has_exactly_the_chance_that_plain_decoding_gives_it(monkeypatch, eager):
    """By enumeration: each text comes from a box of draws whose volume is the text's chance."""
    decoder, prompt, n = speaking("llama", loud=4.0, vocab_size=3), [0, 1, 0, 1, 0], 4
    total = 0.0
    for text in itertools.product(range(3), repeat=n):
        draws, chance = [], 1.0
        for i in range(n):
            p = chances(decoder, [*prompt, *text[:i]])
            draws.append(p[: text[i]].sum() + p[text[i]] / 2)  # inside the token's interval
            chance *= p[text[i]]
        with monkeypatch.context() as patched:
            scripted(patched, draws)
            found = generate(decoder, prompt, key=(0,), max_new_tokens=n, speculate=3)
            assert tuple(found) == text
        total += chance
    assert total == pytest.approx(1.0)
    assert decoder.drafted > decoder.accepted > 0


def test_texts_come_as_often_as_they_should(eager):
    """A chi-square statistic; with 26 degrees of freedom, 0.1% are above 54."""
    decoder, n_texts = speaking("llama", loud=4.0, vocab_size=3), 500
    prompt = [0, 0, 1, 1, 2, 2, 0, 2, 1, 0]  # every pair has a token behind it to draft
    expected, found = np.ones((3, 3, 3)), np.zeros((3, 3, 3))
    for text in itertools.product(range(3), repeat=3):
        for i in range(3):
            expected[text] *= chances(decoder, [*prompt, *text[:i]])[text[i]]
    for seed in range(n_texts):
        found[tuple(generate(decoder, prompt, key=(seed,), max_new_tokens=3))] += 1
    assert decoder.drafted > 2 * decoder.accepted > 200
    assert (np.square(found - n_texts * expected) / (n_texts * expected)).sum() < 54


def test_a_model_that_takes_one_token_at_a_time_goes_without_drafts(monkeypatch):
    decoder = speaking("gpt2")
    step = type(decoder.model).step

    def one_at_a_time(self, params, tokens, cache, *, lengths=None, after_each=False):
        if tokens.shape[1] > 1 and lengths is None:
            raise ValueError("one token at a time")
        return step(self, params, tokens, cache, lengths=lengths)

    expected = list(generate(decoder, [1, 2], max_new_tokens=40))
    monkeypatch.setattr(type(decoder.model), "step", one_at_a_time)
    simple = Decoder(decoder.model, decoder._params)
    assert simple.cached
    assert not simple.looks_ahead
    assert list(generate(simple, [1, 2], max_new_tokens=40)) == expected
    assert simple.drafted == 0


def test_the_number_of_drafts_is_checked():
    with pytest.raises(ValueError, match="speculate must be at least 0: got -1"):
        next(generate(MODELS[1], [1], max_new_tokens=1, speculate=-1))
