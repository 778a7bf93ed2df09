import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import adamw, apply_updates

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((5, 7)), "blocks": ({"scale": RNG.standard_normal(3)},)}


def gradients(step):
    rng = np.random.default_rng(step)
    return pytree.map(lambda leaf: rng.standard_normal(leaf.shape), PARAMS)


def follow(optimizer, oracle, steps=50):
    """Run both, and return the parameters of each."""
    params, state = PARAMS, optimizer.init(PARAMS)
    with jax.enable_x64(True):
        theirs = jax.tree.map(jnp.asarray, PARAMS)
        oracle_state = oracle.init(theirs)
        for step in range(steps):
            updates, state = optimizer.update(gradients(step), state, params)
            params = apply_updates(params, updates)
            updates, oracle_state = oracle.update(gradients(step), oracle_state, theirs)
            theirs = optax.apply_updates(theirs, updates)
    return params, jax.tree.map(np.asarray, theirs)


@pytest.mark.parametrize(
    "settings", [{}, {"b1": 0.8, "b2": 0.95, "eps": 1e-3}, {"weight_decay": 0.3}]
)
def test_equals_optax(settings):
    mask = {"w": True, "blocks": ({"scale": False},)}
    ours, theirs = follow(adamw(0.1, **settings), optax.adamw(0.1, mask=mask, **settings))
    for (path, a), b in zip(pytree.leaves_with_path(ours), pytree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=path)


def test_a_schedule_counts_updates_from_zero():
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.1

    optimizer = adamw(schedule)
    state = optimizer.init(PARAMS)
    for step in range(3):
        _, state = optimizer.update(gradients(step), state, PARAMS)
    assert seen == [0, 1, 2]
    assert state.count == 3


def test_decay_spares_norms_unless_asked():
    zero = pytree.zeros_like(PARAMS)
    updates, _ = (optimizer := adamw(0.1, weight_decay=0.5)).update(
        zero, optimizer.init(PARAMS), PARAMS
    )
    np.testing.assert_allclose(updates["w"], -0.05 * PARAMS["w"], rtol=1e-15)
    assert not updates["blocks"][0]["scale"].any()
    everything = adamw(0.1, weight_decay=0.5, mask=lambda p: pytree.map(lambda leaf: True, p))
    updates, _ = everything.update(zero, everything.init(PARAMS), PARAMS)
    assert updates["blocks"][0]["scale"].all()


def test_nothing_is_written_to():
    optimizer = adamw(0.1)
    state = optimizer.init(PARAMS)
    grads = gradients(0)
    before = [leaf.copy() for leaf in pytree.leaves((PARAMS, state, grads))]
    optimizer.update(grads, state, PARAMS)
    after = pytree.leaves((PARAMS, state, grads))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
