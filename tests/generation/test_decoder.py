import itertools
import math

import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.compose import bind, residual, serial
from functional_lm.generation import Decoder, generate, generate_batch, window_start
from functional_lm.layers import embedding, rms_norm, unembedding
from functional_lm.models import build, llama_decoder, self_attention
from functional_lm.models.loading import of_config, resolve
from functional_lm.testing.inputs import same_bits

SIZES = {"d_model": 24, "n_heads": 6, "n_layers": 2, "d_ff": 7, "max_seq_len": 20}
RNG = np.random.default_rng(0)


def model(dtype=np.float64, *, loud=1.0, **changes):
    """Return a model and parameters whose logits differ clearly from token to token."""
    language_model = build("llama", vocab_size=13, **(SIZES | changes))
    params = language_model.init((1,), dtype=dtype)

    def louder(path, leaf):
        if path.endswith("scale"):
            draw = np.random.default_rng(len(path)).standard_normal(leaf.shape)
            return (leaf + 0.3 * draw).astype(dtype)
        return leaf * (loud if "mixer.qkv" in path else 3.0 if "blocks" in path else 20.0)

    return language_model, pytree.map_with_path(louder, params)


def uncached(llama, params):
    def next_logits(tokens):
        start = window_start(len(tokens), llama.config.max_seq_len)
        return llama.logits(params, tokens[None, start:])[0][0, -1]

    return next_logits


def prompts(n, longest=45, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 13, length) for length in rng.integers(1, longest + 1, n)]


def expect_logits_of(llama, params, texts, new, tolerance=1e-13):
    """Feed new tokens (steps, B) after prompts, and compare all logits with the uncached ones.

    In float32 with those of float64: they may err four times as much as the uncached ones do. Of
    one text, some passes take two tokens, and wrong guesses that are taken back.
    """
    exact = pytree.map(lambda leaf: leaf.astype(np.float64), params)
    oracle, uncached_logits = uncached(llama, exact), uncached(llama, params)
    decoder = Decoder(llama, params)
    logits = decoder.prefill(texts)
    ours, theirs, ahead = [], [], []
    for i, tokens in enumerate(new):
        expected = np.stack([oracle(text) for text in texts])
        scale = np.abs(expected).max(axis=-1, keepdims=True)
        ours.append((logits - expected) / scale)
        theirs.append((np.stack([uncached_logits(text) for text in texts]) - expected) / scale)
        assert logits.dtype == params["embedding"]["weight"].dtype
        if ahead:
            logits = ahead.pop()
        elif len(texts) == 1 and i % 3 == 1 and i + 1 < len(new) and decoder.room > 2:
            both = [*tokens, *new[i + 1]]
            found = decoder.look_ahead([*both, (both[0] + 1) % 13, 0][: decoder.room])
            decoder.accept(2)
            logits, ahead = found[:1], [found[1:2]]
        else:
            logits = decoder.step(tokens)
        texts = [np.append(text, token) for text, token in zip(texts, tokens, strict=True)]
    assert np.abs(ours).max() <= max(4 * np.abs(theirs).max(), tolerance)


def test_in_float64_100_prompts_go_on_with_the_same_tokens_alone_and_at_once():
    llama, params = model()
    texts, decoder, oracle = prompts(100), Decoder(llama, params), uncached(llama, params)
    expected = [list(generate(oracle, text, max_new_tokens=30)) for text in texts]
    assert len({token for tokens in expected for token in tokens}) > 6
    for text, tokens in zip(texts, expected, strict=True):
        assert list(generate(decoder, text, max_new_tokens=30)) == tokens
    rows = generate_batch(decoder, texts, max_new_tokens=30)
    assert [list(tokens) for tokens in zip(*rows, strict=True)] == expected


def test_sampled_tokens_are_the_same():
    llama, params = model()
    texts, keys = prompts(5, seed=2), [(0, i) for i in range(5)]
    settings = {"keys": keys, "max_new_tokens": 30}
    ours = list(generate_batch(Decoder(llama, params), texts, **settings))
    assert ours == list(generate_batch(uncached(llama, params), texts, **settings))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_seq_len", [1, 2, 3, 20])
def test_logits_at_every_length(max_seq_len, dtype, batch_size):
    llama, params = model(dtype, max_seq_len=max_seq_len)
    new = RNG.integers(0, 13, (45, batch_size))
    expect_logits_of(llama, params, prompts(batch_size, seed=max_seq_len), new)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    ("n_kv_heads", "rope_pairing", "tie_embeddings"),
    list(itertools.product([1, 2, 6], ["interleaved", "half"], [True, False])),
)
def test_every_kind_of_model(n_kv_heads, rope_pairing, tie_embeddings, batch_size):
    kind = {"n_kv_heads": n_kv_heads, "rope_pairing": rope_pairing}
    llama, params = model(**kind, tie_embeddings=tie_embeddings, norm_eps=0.01, rope_theta=100.0)
    new = RNG.integers(0, 13, (12, batch_size))
    expect_logits_of(llama, params, prompts(batch_size, seed=3), new)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_large_vocabulary_goes_without_a_table(batch_size, monkeypatch):
    monkeypatch.setattr(llama_decoder, "SMALL_VOCABULARY", 12)
    llama, params = model()
    new = RNG.integers(0, 13, (12, batch_size))
    expect_logits_of(llama, params, prompts(batch_size, seed=6), new)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_model_lies_in_panels(dtype, batch_size, monkeypatch):
    monkeypatch.setattr(llama_decoder, "CACHED", 0)
    llama, params = model(dtype, n_kv_heads=3, d_ff=70)
    new = RNG.integers(0, 13, (30, batch_size))
    expect_logits_of(llama, params, prompts(batch_size, seed=7), new)
    assert Decoder(llama, params).prefill([[1]]).shape == (1, 13)


def test_a_token_of_zeros_is_no_fault_until_it_is_used():
    llama, params = model(norm_eps=0.0)
    params["embedding"]["weight"][5] = 0.0
    texts = [np.array([1, 2, 3]), np.array([4])]
    expect_logits_of(llama, params, texts, np.array([[1, 2], [3, 4]]))


def test_float32_tokens_differ_only_where_the_top_two_are_close():
    llama, params = model(np.float32, max_seq_len=64)
    decoder, oracle = Decoder(llama, params), uncached(llama, params)
    for prompt in prompts(20, seed=4):
        text = prompt
        for token in generate(decoder, prompt, max_new_tokens=30):
            logits = oracle(text)
            gap = logits.max() - logits[token]
            assert gap <= 2e-5 * np.abs(logits).max()
            text = np.append(text, token)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loud", [30.0, -30.0, 1000.0, -1000.0])
def test_scores_beyond_the_range_of_exp(loud, dtype, batch_size):
    """Queries and keys of loud models give scores whose exponentials overflow or vanish."""
    llama, params = model(dtype, loud=math.sqrt(abs(loud)), max_seq_len=40)
    for block in params["blocks"]:
        block["mixer"]["qkv"]["weight"][:, :24] *= math.copysign(1.0, loud)
        block["mixer"]["qkv"]["weight"][:, 48:] /= math.sqrt(abs(loud))
    new = RNG.integers(0, 13, (20, batch_size))
    tolerance = 3e-3 if dtype == np.float32 else 1e-9  # the scores themselves are rounded
    expect_logits_of(llama, params, prompts(batch_size, 10, seed=5), new, tolerance)


def test_far_negative_gates_are_silent():
    llama, params = model(np.float32, d_ff=40)
    for block in params["blocks"]:
        block["mlp"]["up"]["weight"][:, :40] *= 200
    expect_logits_of(llama, params, prompts(2), RNG.integers(0, 13, (5, 2)))


def test_parameters_are_not_written():
    llama, params = model()
    before = pytree.map(np.copy, params)
    decoder = Decoder(llama, params)
    list(generate(decoder, [1, 2], max_new_tokens=30))
    list(generate_batch(decoder, [[1, 2], [3]], max_new_tokens=30))
    assert same_bits(params, before)


def test_decoders_do_not_interfere():
    llama, params = model()
    _, other = model(loud=2.0)
    alone = list(generate(Decoder(llama, params), [1, 2], max_new_tokens=30))
    first, second = Decoder(llama, params), Decoder(llama, other)
    both = zip(
        generate(first, [1, 2], max_new_tokens=30),
        generate(second, [5], max_new_tokens=30),
        strict=True,
    )
    assert [token for token, _ in both] == alone


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_decoder_starts_anew(batch_size):
    llama, params = model()
    decoder = Decoder(llama, params)
    first = decoder.prefill([[1, 2, 3]] * batch_size)
    for _ in range(30):
        decoder.step([4] * batch_size)
    decoder.prefill([[7] * 18] * batch_size)
    np.testing.assert_array_equal(decoder.prefill([[1, 2, 3]] * batch_size), first)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_logits_stay_as_they_are(batch_size):
    llama, params = model()
    decoder = Decoder(llama, params)
    first = decoder.prefill([[1, 2, 3]] * batch_size)
    kept = first.copy()
    second = decoder.step([4] * batch_size)
    decoder.step([5] * batch_size)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_weights_that_are_not_finite_are_an_error(batch_size):
    llama, params = model()
    params["norm"]["scale"][3] = np.nan
    with pytest.raises(ValueError, match="logits must be finite"):
        Decoder(llama, params).prefill([[1, 2]] * batch_size)


def test_a_decoder_warns_of_nothing_and_leaves_settings_alone():
    from threadpoolctl import threadpool_info

    llama, params = model(np.float32, loud=30.0)
    before = [library["num_threads"] for library in threadpool_info()]
    with np.errstate(all="raise", under="ignore"):
        state = np.geterr()
        for _ in generate(Decoder(llama, params), [1, 2], max_new_tokens=30):
            assert np.geterr() == state
            assert [library["num_threads"] for library in threadpool_info()] == before


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda d: d.step([1]), ValueError, "must begin with prefill"),
        (lambda d: d.prefill([]), ValueError, "at least one prompt"),
        (lambda d: d.prefill([[1], []]), ValueError, "at least one token"),
        (lambda d: d.prefill([[1], [13]]), ValueError, r"in \[0, 13\): got 13"),
        (lambda d: d.prefill([[1.0]]), TypeError, "must be integers"),
        (lambda d: (d.prefill([[1], [2]]), d.step([1])), ValueError, "each of the 2 texts"),
        (lambda d: (d.prefill([[1]]), d.step([-1])), ValueError, r"in \[0, 13\): got -1"),
        (lambda d: (d.prefill([[1]]), d.step([0.5])), TypeError, "must be integers"),
        (lambda d: d.look_ahead([1]), ValueError, "one text and a model .* got 0 texts"),
        (lambda d: (d.prefill([[1], [2]]), d.look_ahead([1])), ValueError, "got 2 texts"),
        (lambda d: (d.prefill([[1]]), d.look_ahead([[1]])), ValueError, "takes one token to 19"),
        (lambda d: (d.prefill([[1]]), d.look_ahead([1] * 20)), ValueError, r"shape \(20,\)"),
        (lambda d: (d.prefill([[1]]), d.look_ahead([1, 13])), ValueError, "got 13"),
        (
            lambda d: (d.prefill([[1]]), d.look_ahead([1, 2]), d.step([1])),
            ValueError,
            "call accept",
        ),
        (lambda d: (d.prefill([[1]]), d.accept(1)), ValueError, "accept takes 1 to 0"),
        (lambda d: (d.prefill([[1]]), d.look_ahead([1]), d.accept(2)), ValueError, "takes 1 to 1"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call(Decoder(*model()))


def test_parameters_must_fit_the_config():
    _, params = model()
    llama, _ = model(n_layers=3)
    with pytest.raises(ValueError, match="the 3 blocks of the model"):
        Decoder(llama, params)


def test_the_fast_decoder_is_used_for_one_text_and_for_several():
    decoder = Decoder(*model())
    for texts in ([[1, 2], [3]], [[1, 2]]):
        decoder.prefill(texts)
        assert isinstance(decoder._fast, llama_decoder.LlamaDecoder)
        assert decoder._cache is None


class Mean:
    """A mixer without a step: the mean of all positions so far."""

    @staticmethod
    def init(key, *, dtype=np.float32):
        return {}

    @staticmethod
    def forward(params, x):
        n = np.arange(1, x.shape[1] + 1)[:, None]
        return x.cumsum(axis=1) / n, n

    @staticmethod
    def vjp(residuals, g):
        return {}, np.flip(np.flip(g / residuals, 1).cumsum(axis=1), 1)


@pytest.mark.parametrize("mixes", [False, True])
def test_a_custom_model_decodes_with_a_cache_if_all_that_mixes_has_a_step(mixes):
    attention = residual(bind(self_attention, d_model=8, n_heads=2))
    parts = {"embedding": embedding, "attention": attention}
    parts |= {"mean": Mean} if mixes else {"norm": rms_norm}
    name, architecture = resolve(serial(**parts, unembedding=unembedding))
    custom = of_config(name, architecture, {"vocab_size": 13, "d_model": 8, "max_seq_len": 20})
    params = custom.init((0,), dtype=np.float64)
    decoder = Decoder(custom, params)
    assert decoder.cached is not mixes
    assert decoder.looks_ahead
    for n in 1, 3:
        expect_logits_of(custom, params, prompts(n), RNG.integers(0, 13, (25, n)))
