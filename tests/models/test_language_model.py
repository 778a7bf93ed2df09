import jax
import numpy as np
import optax
import pytest
from functional_lm.reference.models import language_model as twin

from functional_lm import prng, pytree, value_and_grad
from functional_lm.models import language_model
from functional_lm.models.transformer import PRESETS, Config
from functional_lm.optimizers import (
    adamw,
    apply_updates,
    chain,
    clip_by_global_norm,
    warmup_cosine_decay_schedule,
)
from functional_lm.testing import Case, certify, check_layer

test_certified = certify("language_model")


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("vocab_size", [65, 257])
def test_the_first_loss_is_near_log_v(preset, vocab_size):
    config = Config(vocab_size, **PRESETS[preset])
    params = language_model.init((0,), config=config)
    tokens = prng.integers((1,), (4, 65), low=0, high=vocab_size)
    loss, _ = language_model.forward(params, tokens[:, :-1], targets=tokens[:, 1:], config=config)
    assert loss == pytest.approx(np.log(vocab_size), rel=0.02)


def test_the_tiny_preset_equals_jax():
    config = Config(65, **PRESETS["tiny"], max_seq_len=64)
    params = language_model.init((0,), config=config, dtype=np.float64)
    tokens = prng.integers((1,), (2, 65), low=0, high=65)
    side = {"targets": tokens[:, 1:], "config": config}
    (report,) = check_layer(
        "language_model", Case("language_model", "tiny", params, tokens[:, :-1], side)
    )
    report.raise_if_failed()
    assert len(report.leaves) == 1 + len(pytree.leaves(params))


def test_twenty_adamw_steps_follow_jax_and_optax():
    config = Config(13, d_model=24, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=7)
    params = language_model.init((0,), config=config, dtype=np.float64)
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
                params, tokens, targets=targets, config=config
            )
            updates, state = oracle.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        for step in range(20):
            tokens = prng.integers((1, step), (3, 8), low=0, high=13).astype(np.int32)
            x, y = tokens[:, :-1], tokens[:, 1:]
            loss, grads = value_and_grad(language_model, params, x, targets=y, config=config)
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
    config = Config(13, d_model=24, n_heads=6, n_layers=1)
    params = language_model.init((0,), config=config)
    optimizer = chain(
        clip_by_global_norm(1e-3), adamw(warmup_cosine_decay_schedule(1e-2, 2, 5), weight_decay=0.1)
    )
    state = optimizer.init(params)
    tokens = prng.integers((1,), (2, 7), low=0, high=13)
    for _ in range(4):
        loss, grads = value_and_grad(
            language_model, params, tokens[:, :-1], targets=tokens[:, 1:], config=config
        )
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        for leaf in pytree.leaves((loss, grads, updates, params, state)):
            assert leaf.dtype in (np.float32, np.int64)


def test_a_small_model_learns_a_repeating_sequence():
    config = Config(7, d_model=32, n_heads=2, n_layers=2, max_seq_len=16)
    params = language_model.init((0,), config=config)
    sequence = np.tile(np.array([3, 1, 4, 1, 5, 2, 6]), 20)
    optimizer = adamw(3e-3)
    state = optimizer.init(params)
    for step in range(200):
        start = prng.integers((1, step), (8, 1), low=0, high=100)
        window = sequence[start + np.arange(17)]
        loss, grads = value_and_grad(
            language_model, params, window[:, :-1], targets=window[:, 1:], config=config
        )
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
    # The first "1" of a window is ambiguous: 3 1 4 or 4 1 5.
    window = sequence[2:19][None]
    loss, _ = language_model.forward(params, window[:, :-1], targets=window[:, 1:], config=config)
    assert loss < 0.05
