"""Runs an optimizer beside optax's, which is its twin."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import apply_updates

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((5, 7)), "blocks": ({"scale": RNG.standard_normal(3)},)}


def gradients(step):
    rng = np.random.default_rng(step)
    return pytree.map(lambda leaf: rng.standard_normal(leaf.shape), PARAMS)


@pytest.fixture
def params():
    return PARAMS


@pytest.fixture
def grads_at():
    return gradients


@pytest.fixture
def assert_equals_optax():
    def run(optimizer, oracle, steps=50):
        """Require the same parameters after some steps, to 1e-12."""
        ours, state = PARAMS, optimizer.init(PARAMS)
        with jax.enable_x64(True):
            theirs = jax.tree.map(jnp.asarray, PARAMS)
            oracle_state, update = oracle.init(theirs), jax.jit(oracle.update)
            for step in range(steps):
                updates, state = optimizer.update(gradients(step), state, ours)
                ours = apply_updates(ours, updates)
                updates, oracle_state = update(gradients(step), oracle_state, theirs)
                theirs = optax.apply_updates(theirs, updates)
            theirs = jax.tree.map(np.asarray, theirs)
        for path, a, b in pytree.zip_with_path(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14, err_msg=path)

    return run
