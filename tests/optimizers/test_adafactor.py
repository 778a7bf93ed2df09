import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import adafactor


def decay(count, exponent):
    """optax rounds it to float32."""
    return 1 - (count + 1).astype(jnp.float64) ** -exponent


def oracle(least, *, decay_rate=0.8, threshold=1.0, scaled=True, momentum=None):
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=decay_rate, min_dim_size_to_factor=least, decay_rate_fn=decay
        ),
        optax.clip_by_block_rms(threshold),
        optax.scale_by_learning_rate(0.1),
        optax.scale_by_param_block_rms() if scaled else optax.identity(),
        optax.ema(momentum, debias=False) if momentum else optax.identity(),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (adafactor(0.1), oracle(128)),
        (adafactor(0.1, 2), oracle(2)),
        (
            adafactor(
                *(0.1, 5, 0.7),
                momentum=0.9,
                clipping_threshold=0.5,
                multiply_by_parameter_scale=False,
            ),
            oracle(5, decay_rate=0.7, momentum=0.9, threshold=0.5, scaled=False),
        ),
    ],
)
def test_equals_optax(assert_equals_optax, ours, theirs):
    assert_equals_optax(ours, theirs)


def test_equals_optax_itself_to_the_rounding_of_its_decay():
    params = {"w": np.random.default_rng(0).standard_normal((130, 140)).astype(np.float32)}
    ours, theirs = adafactor(0.1), optax.adafactor(0.1)
    state, other = ours.init(params), theirs.init(params)
    for step in range(3):
        grads = {"w": np.random.default_rng(step).standard_normal((130, 140)).astype(np.float32)}
        updates, state = ours.update(grads, state, params)
        expected, other = theirs.update(grads, other, params)
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-4, atol=1e-8)


def test_the_memory_of_a_matrix_is_a_row_and_a_column():
    params = {"w": np.ones((130, 300), np.float32), "stack": np.ones((3, 128, 200), np.float32)}
    state = adafactor(0.1).init(params)
    shapes = {path: leaf.shape for path, leaf in pytree.leaves_with_path(state.nu)}
    assert shapes == {"w.0": (130,), "w.1": (300,), "stack.0": (3, 128), "stack.1": (3, 200)}
    updates, state = adafactor(0.1).update(params, state, params)
    assert {leaf.dtype for leaf in pytree.leaves((updates, state.nu))} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "settings",
    [{"decay_rate": -1.0}, {"clipping_threshold": 0.0}, {"momentum": 1.0}, {"eps": -1.0}],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must"):
        adafactor(0.1, **settings)
