"""Isolated documents: packed into one window, each computes what it computes alone."""

import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.generation import Decoder
from functional_lm.models import build, transformer
from functional_lm.models.adapting import AdapterConfig, with_adapters
from functional_lm.text import CharTokenizer
from functional_lm.training import Experiment, TrainConfig

SIZES = {"vocab_size": 13, "d_model": 24, "n_heads": 6, "n_layers": 2, "max_seq_len": 31}
BOUNDARY = 12
MODELS = {
    "llama": {},
    "llama, tiled": {"attention": "tiled", "n_kv_heads": 2, "remat": True},
    "gpt2": {},
    "hybrid, a window": {"window": 4, "qk_norm": True, "attention_sinks": True},
    "hybrid, alibi": {"positions": "alibi", "gated_attention": True, "block": "parallel"},
    "hybrid, latent": {"mixer": "multi_latent_attention", "attention_soft_cap": 3.0},
    "hybrid, experts": {"experts": 3, "positions": "none"},
}


def made(name, **more):
    return build(name.partition(",")[0], **SIZES, **(MODELS.get(name, {}) | more))


def texts():
    """Return documents, each but the first behind the boundary, and all of them in a row."""
    lengths = (5, 1, 9, 2, 7)
    parts = [prng.integers((i,), (n,), low=0, high=BOUNDARY) for i, n in enumerate(lengths)]
    parts[1:] = [np.r_[BOUNDARY, part] for part in parts[1:]]
    return parts, np.concatenate(parts)


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_document_computes_what_it_does_alone(name):
    model, plain = made(name, boundary=BOUNDARY), made(name)
    params = model.init((0,), dtype=np.float64)
    parts, row = texts()
    logits, _ = model.logits(params, row[None])
    alone = [plain.logits(params, part[None]) for part in parts]
    expected = np.concatenate([one for one, _ in alone], axis=1)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)
    assert np.abs(plain.logits(params, row[None])[0] - expected).max() > 1e-3


@pytest.mark.parametrize("name", [n for n in MODELS if "experts" not in n])
def test_its_gradient_is_the_sum_of_those_alone(name):
    model, plain = made(name, boundary=BOUNDARY), made(name)
    params = model.init((0,), dtype=np.float64)
    parts, row = texts()
    g = prng.normal((9,), (1, len(row), 13), dtype=np.float64)
    together, _ = model.model.vjp(model.model.forward(params, row[None])[1], g)
    total, start = pytree.map(np.zeros_like, params), 0
    for part in parts:
        own = g[:, start : start + len(part)]
        d_params, _ = plain.model.vjp(plain.model.forward(params, part[None])[1], own)
        total, start = pytree.add(total, d_params), start + len(part)
    for (path, ours), theirs in zip(
        pytree.leaves_with_path(together), pytree.leaves(total), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11, err_msg=path)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("at_once", [1, 3])
def test_steps_equal_the_forward(name, at_once):
    model = made(name, boundary=BOUNDARY)
    params = model.init((0,), dtype=np.float64)
    _, row = texts()
    tokens = np.stack([row[:27], np.roll(row, 4)[:27]])
    expected, _ = model.logits(params, tokens)
    cache = model.init_cache(params, 2, 31)
    for start in range(0, 27, at_once):
        part = tokens[:, start : start + at_once]
        logits, cache = model.step(params, part, cache)
        np.testing.assert_allclose(logits, expected[:, start + at_once - 1], rtol=0, atol=1e-12)


def test_prompts_of_other_lengths_and_long_texts():
    model = made("gpt2", boundary=BOUNDARY)
    params = model.init((0,), dtype=np.float64)
    _, row = texts()
    decoder = Decoder(model, params)
    assert decoder.cached
    prompts = [row[:3].tolist(), row[:11].tolist()]
    found = decoder.prefill(prompts)
    for _ in range(30):  # beyond the longest window
        for text, own in zip(prompts, found, strict=True):
            window = text[-31:] if len(text) <= 31 else text[15 * -(-(len(text) - 31) // 15) :]
            expected, _ = model.logits(params, np.array([window]))
            np.testing.assert_allclose(own, expected[0, -1], rtol=0, atol=1e-12)
        tokens = [BOUNDARY if len(text) % 7 == 0 else len(text) % 12 for text in prompts]
        found = decoder.step(tokens)
        for text, token in zip(prompts, tokens, strict=True):
            text.append(token)


def test_the_greedy_text_of_one_prompt_is_that_of_the_forward():
    model = made("llama", boundary=BOUNDARY)  # the fast decoder of a Llama does not know documents
    params = model.init((0,))
    decoder = Decoder(model, params)
    logits = decoder.prefill([[1, 2, BOUNDARY, 3]])
    alone, _ = model.logits(params, np.array([[BOUNDARY, 3]]))
    np.testing.assert_allclose(logits[0], alone[0, -1], rtol=1e-4, atol=1e-5)
    logits = decoder.step([4])
    alone, _ = model.logits(params, np.array([[BOUNDARY, 3, 4]]))
    np.testing.assert_allclose(logits[0], alone[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"mixer": "mamba2"}, "mamba2"),
        ({"mixer": "linear_attention"}, "linear_mixer"),
        ({"mixer": "gated_delta_rule", "full_every": 2}, "linear_mixer"),
        ({"convolution": 3}, "serial"),
    ],
)
def test_layers_that_carry_a_state_are_refused(settings, name):
    with pytest.raises(ValueError, match=f"keep them apart, such as attention: {name}"):
        build("hybrid", **SIZES, **settings, boundary=BOUNDARY)


def test_a_prompt_is_refused_and_a_prefix_is_seen_by_all():
    model = made("llama", boundary=BOUNDARY)
    prompted = with_adapters(model, AdapterConfig(adapter="prompt", adapter_size=2))
    with pytest.raises(ValueError, match="a prompt stands before the first document alone"):
        prompted.logits(prompted.init((0,)), np.array([[1, 2]]))
    fronted, plain = (
        with_adapters(made("llama", **more), AdapterConfig(adapter="prefix", adapter_size=2))
        for more in ({"boundary": BOUNDARY}, {})
    )
    params = fronted.init((0,), dtype=np.float64)
    parts, row = texts()
    logits, _ = fronted.logits(params, row[None])
    last, _ = plain.logits(params, parts[-1][None])
    np.testing.assert_allclose(logits[:, -len(parts[-1]) :], last, rtol=0, atol=1e-12)
    cache = fronted.init_cache(params, 1, 31)
    stepped, _ = fronted.step(params, row[None], cache)
    np.testing.assert_allclose(stepped, logits[:, -1], rtol=0, atol=1e-12)


def test_where_documents_begin():
    tokens = np.array([[1, 9, 9, 2], [9, 3, 4, 9]])
    begins = transformer.documents(tokens, 9)
    np.testing.assert_array_equal(begins, [[0, 1, 2, 2], [0, 0, 0, 3]])
    later = transformer.documents(tokens[:, :1], 9, np.array([[4], [5]]), np.array([[2], [3]]))
    np.testing.assert_array_equal(later, [[2], [5]])
    assert transformer.documents(tokens, None) is None


class Marked(CharTokenizer):
    """Characters, of which the first ends a text."""

    end_of_text = 0


def test_a_run_keeps_documents_apart():
    tokenizer = Marked("\nabc")
    settings = TrainConfig(steps=2, seq_len=8, isolate_documents=True)
    experiment = Experiment.build("abcab\n" * 50, settings, tokenizer=tokenizer)
    assert experiment.config.boundary == 0
    assert experiment.model.model.boundary == 0
    assert "boundary" not in experiment.given
    assert experiment.given["isolate_documents"]
    with pytest.raises(ValueError, match="needs a tokenizer with a token for the end of a text"):
        Experiment.build("abcab\n" * 50, settings)
    with pytest.raises(ValueError, match="keep them apart, such as attention: mamba2"):
        Experiment.build(
            "ab\n" * 99,
            settings,
            model="hybrid",
            sizes={"mixer": "mamba2"},
            tokenizer=tokenizer,
        )


def test_a_model_that_ignores_the_boundary_is_refused():
    from functional_lm.compose import serial
    from functional_lm.layers import embedding, unembedding

    settings = TrainConfig(steps=2, seq_len=8, isolate_documents=True)
    with pytest.raises(ValueError, match=r"keeps documents apart .* ignores it; leave it out"):
        Experiment.build(
            "abcab\n" * 50,
            settings,
            model=serial(embedding=embedding, unembedding=unembedding),
            tokenizer=Marked("\nabc"),
        )
