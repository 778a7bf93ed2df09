import tracemalloc

import chex
import jax
import numpy as np
import optax
import pytest
from functional_lm.reference.models import language_model as twin

from functional_lm import prng, pytree, value_and_grad
from functional_lm.compose import residual, serial
from functional_lm.generation import Decoder
from functional_lm.layers import embedding, rms_norm, unembedding
from functional_lm.losses import cross_entropy
from functional_lm.models import build, language_model, self_attention
from functional_lm.models.llama import PRESETS, Config, architecture
from functional_lm.models.loading import of_config, resolve
from functional_lm.optimizers import (
    adamw,
    apply_updates,
    chain,
    clip_by_global_norm,
    warmup_cosine_decay_schedule,
)
from functional_lm.testing import Case, certify, check_layer, check_vjp, registry

test_certified = certify("language_model")


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("vocab_size", [65, 257])
def test_the_first_loss_is_near_log_v(preset, vocab_size):
    model = build("llama", vocab_size=vocab_size, **PRESETS[preset])
    losses = []
    for seed in range(4):
        tokens = prng.integers((1, seed), (4, 65), low=0, high=vocab_size)
        loss, _ = model.forward(model.init((seed,)), tokens[:, :-1], targets=tokens[:, 1:])
        losses.append(loss)
    assert np.mean(losses) == pytest.approx(np.log(vocab_size), rel=0.02)


def test_the_tiny_preset_equals_jax():
    model = architecture(Config(65, **PRESETS["tiny"], max_seq_len=64))
    params = language_model.init((0,), model=model, dtype=np.float64)
    tokens = prng.integers((1,), (2, 17), low=0, high=65)
    side = {"targets": tokens[:, 1:], "model": model}
    (report,) = check_layer(
        "language_model", Case("language_model", "tiny", params, tokens[:, :-1], side)
    )
    report.raise_if_failed()
    assert len(report.leaves) == 1 + len(pytree.leaves(params))


def test_twenty_adamw_steps_follow_jax_and_optax():
    model = architecture(Config(13, d_model=24, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=7))
    params = language_model.init((0,), model=model, dtype=np.float64)
    optimizer = chain(
        clip_by_global_norm(1.0), adamw(warmup_cosine_decay_schedule(1e-2, 5, 20, 1e-3))
    )

    def rate(step):
        warm = 1e-2 * (step + 1) / 5
        decayed = 1e-3 + 9e-3 * (1 + jax.numpy.cos(jax.numpy.pi * (step - 5) / 15)) / 2
        return jax.numpy.where(step < 5, warm, decayed)

    def is_matrix(tree):
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, tree)

    theirs = params
    state = optimizer.init(params)
    losses, expected = [], []
    with jax.enable_x64(True):
        oracle = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, mask=is_matrix))
        oracle_state = oracle.init(theirs)

        @jax.jit
        def oracle_step(params, state, tokens, targets):
            loss, grads = jax.value_and_grad(twin.forward)(
                params, tokens, targets=targets, model=registry.twin(model)
            )
            updates, state = oracle.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        for step in range(20):
            tokens = prng.integers((1, step), (3, 8), low=0, high=13).astype(np.int32)
            x, y = tokens[:, :-1], tokens[:, 1:]
            loss, grads = value_and_grad(language_model, params, x, targets=y, model=model)
            updates, state = optimizer.update(grads, state, params)
            params = apply_updates(params, updates)
            losses.append(loss)
            theirs, oracle_state, their_loss = oracle_step(theirs, oracle_state, x, y)
            expected.append(float(their_loss))
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    rows = pytree.zip_with_path(params, jax.tree.map(np.asarray, theirs))
    for path, ours, oracle_leaf in rows:
        error = np.linalg.norm(ours - oracle_leaf)
        assert error <= 1e-9 * np.linalg.norm(oracle_leaf), path


def test_the_optimizer_keeps_float32():
    model = architecture(Config(13, d_model=24, n_heads=6, n_layers=1))
    params = language_model.init((0,), model=model)
    optimizer = chain(
        clip_by_global_norm(1e-3), adamw(warmup_cosine_decay_schedule(1e-2, 2, 5), weight_decay=0.1)
    )
    state = optimizer.init(params)
    tokens = prng.integers((1,), (2, 7), low=0, high=13)
    for _ in range(4):
        loss, grads = value_and_grad(
            language_model, params, tokens[:, :-1], targets=tokens[:, 1:], model=model
        )
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        for leaf in pytree.leaves((loss, grads, updates, params, state)):
            assert leaf.dtype in (np.float32, np.int64)


def test_a_small_model_learns_a_repeating_sequence():
    model = architecture(Config(7, d_model=32, n_heads=2, n_layers=2, max_seq_len=16))
    params = language_model.init((0,), model=model)
    sequence = np.tile(np.array([3, 1, 4, 1, 5, 2, 6]), 20)
    optimizer = adamw(3e-3)
    state = optimizer.init(params)
    for step in range(200):
        start = prng.integers((1, step), (8, 1), low=0, high=100)
        window = sequence[start + np.arange(17)]
        loss, grads = value_and_grad(
            language_model, params, window[:, :-1], targets=window[:, 1:], model=model
        )
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
    # The first "1" of a window is ambiguous: 3 1 4 or 4 1 5.
    window = sequence[2:19][None]
    loss, _ = language_model.forward(params, window[:, :-1], targets=window[:, 1:], model=model)
    assert loss < 0.05


TOKENS = prng.integers((1,), (3, 9), low=0, high=13)
X, Y = TOKENS[:, :-1], TOKENS[:, 1:]


def custom(layer, **settings):
    name, found = resolve(layer)
    return of_config(name, found, {"vocab_size": 13, "d_model": 24, "max_seq_len": 8} | settings)


def test_a_model_by_name_is_the_language_model_bit_for_bit():
    model = build("llama", vocab_size=13, d_model=24, n_layers=2, max_seq_len=8, dropout=0.2)
    params = model.init((0,))
    chex.assert_trees_all_equal(params, language_model.init((0,), model=model.model))
    loss, residuals = model.forward(params, X, targets=Y, key=(5,))
    expected, others = language_model.forward(params, X, targets=Y, model=model.model, key=(5,))
    assert loss == expected
    one = np.ones_like(loss)
    ours, _ = model.vjp(residuals, one)
    chex.assert_trees_all_equal(ours, language_model.vjp(others, one)[0])


@pytest.mark.parametrize("kind", ["by name", "custom"])
def test_forward_mode_fits_the_gradient_of_any_model(kind):
    model = custom(serial(embedding=embedding, unembedding=unembedding))
    if kind == "by name":
        model = build("llama", vocab_size=13, d_model=24, n_layers=1, max_seq_len=8)
    params = model.init((0,), dtype=np.float64)
    _, residuals = model.forward(params, X, targets=Y)
    d_params, _ = model.vjp(residuals, 1.0)
    pairs = pytree.zip_with_path(params, d_params)
    expected = sum(np.vdot(t, d_leaf) for _, t, d_leaf in pairs)
    assert model.jvp(residuals, (params, None)) == pytest.approx(expected, rel=1e-11)
    head, inner = model.model.forward(params, X)
    assert model.model.jvp(inner, (params, None)).shape == head.shape


def test_a_custom_model_gets_what_it_names():
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

    model = custom(Model, n_heads=2)
    params = model.init((0,), dtype=np.float64)
    loss, _ = model.forward(params, X, targets=Y, key=(5,))
    assert seen == {"init": (13, 24, np.float64), "forward": (list(range(8)), 2, (5,))}
    assert loss.dtype == np.float64


def test_the_gradient_of_a_custom_model_is_the_difference_quotient():
    model = custom(serial(embedding=embedding, unembedding=unembedding))
    check_vjp(model, model.init((0,), dtype=np.float64), X, targets=Y).raise_if_failed()


def test_a_custom_model_decodes_without_a_cache():
    model = custom(serial(embedding=embedding, unembedding=unembedding))
    params = model.init((0,))
    decoder = Decoder(model, params)
    assert not decoder.cached
    logits, _ = model.logits(params, TOKENS[:1, 4:])  # see window_start
    np.testing.assert_array_equal(decoder.prefill(TOKENS[:1])[0], logits[0, -1])


def test_settings_reach_the_steps_of_a_custom_model():
    attend = residual(serial(norm=rms_norm, attention=self_attention))
    model = custom(serial(embedding=embedding, block=attend, unembedding=unembedding))
    params = model.init((0,), dtype=np.float64)
    decoder = Decoder(model, params)
    assert decoder.cached
    logits, _ = model.logits(params, TOKENS[:1, :5])
    np.testing.assert_allclose(decoder.prefill(TOKENS[:1, :5])[0], logits[0, -1], rtol=1e-10)


def test_a_model_that_returns_no_logits_is_named():
    model = custom(serial(embedding=embedding))
    with pytest.raises(ValueError, match=r"\(B, T, V\) = \(3, 8, 13\): got \(3, 8, 24\)"):
        model.forward(model.init((0,)), X, targets=Y)


def test_without_its_auxiliary_losses_a_mixture_has_the_cross_entropy_alone():
    sizes = {"vocab_size": 11, "d_model": 24, "n_heads": 4, "n_layers": 2}
    model = build("hybrid", **sizes, experts=3, balance_loss=0.5)
    params = model.init((0,), dtype=np.float64)
    tokens = np.arange(22).reshape(2, 11) % 11
    plain, residuals = model.forward(params, tokens, targets=tokens, auxiliary=False)
    (logits, auxiliary), _ = model.model.forward(params, tokens)
    assert plain == pytest.approx(cross_entropy.forward({}, logits, targets=tokens)[0])
    whole, _ = model.forward(params, tokens, targets=tokens)
    assert whole == pytest.approx(plain + auxiliary)
    losing = build("hybrid", **sizes, experts=3, balance_loss=0.0, router_z_loss=0.0)
    _, without = losing.forward(params, tokens, targets=tokens)
    for path, ours, expected in pytree.zip_with_path(
        model.vjp(residuals, 1.0)[0], losing.vjp(without, 1.0)[0]
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-15, err_msg=path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_large_vocabulary_makes_no_matrix_that_the_step_does_not_need(tied):
    sizes = {"d_model": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 4}
    model = build("llama", vocab_size=50_257, **sizes, tie_embeddings=tied)
    params = model.init((0,))
    tokens = prng.integers((1,), (1, 4), low=0, high=50_257).astype(np.int32)
    value_and_grad(model, params, tokens, targets=tokens)
    tracemalloc.start()
    _, grads = value_and_grad(model, params, tokens, targets=tokens)
    after, peak = (size / (50_257 * 32 * 4) for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    # The head's gradient for g = 1, in the residuals, that times g, and the embedding's. The loss
    # of four rows adds a sixteenth for their logits, and as much for the scratch of its formula.
    assert peak < 3.3
    assert after == pytest.approx(1 if tied else 2, abs=0.1)
    assert pytree.count(grads) == model.n_parameters
