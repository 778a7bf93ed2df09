import jax
import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import apply_updates, averaged, chain, params_ema, sgd


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_the_average_equals_optax(params, grads_at, decay):
    optimizer = chain(sgd(0.1), params_ema(decay))
    state = optimizer.init(params)
    with jax.enable_x64(True):
        oracle = optax.ema(decay)
        oracle_state, update = oracle.init(params), jax.jit(oracle.update)
        for step in range(50):
            updates, state = optimizer.update(grads_at(step), state, params)
            params = apply_updates(params, updates)
            expected, oracle_state = update(params, oracle_state)
            for path, one, two in pytree.zip_with_path(averaged(params, state), expected):
                np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14, err_msg=path)


def test_without_an_average_the_params_are_what_is_averaged(params):
    assert averaged(params, sgd(0.1).init(params)) is params
    assert averaged(params, chain(sgd(0.1)).init(params)) is params


def test_frozen_leaves_stay_as_they_are():
    state = chain(params_ema(0.9)).init({"a": np.ones(2), "b": None})
    both = averaged({"a": np.zeros(2), "b": np.full(3, 7.0)}, state)
    assert (both["a"].tolist(), both["b"].tolist()) == ([1, 1], [7, 7, 7])


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match="decay must lie"):
        params_ema(1.0)
