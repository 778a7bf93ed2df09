import numpy as np

from functional_lm.contract import WithState
from functional_lm.layers import gated_delta_rule
from functional_lm.testing import certify

test_certified = certify("gated_delta_rule")


def test_the_last_value_of_a_key_replaces_the_ones_before():
    keys = np.eye(3)[np.array([0, 1, 0, 2, 0, 1])][None, :, None]  # (1, 6, 1, 3)
    values = np.arange(12.0).reshape(1, 6, 1, 2)
    ones = np.ones((1, 6, 1))
    x = gated_delta_rule.Inputs(keys, keys, values, ones, 0 * ones)
    y, _ = gated_delta_rule.forward({}, WithState(x, np.zeros((1, 1, 3, 2))), chunk_size=4)
    np.testing.assert_allclose(y.x, values)
    np.testing.assert_allclose(y.state[0, 0], values[0, [4, 5, 3], 0])


def test_a_position_with_neither_share_nor_decay_leaves_the_state():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 5, 3, size)) for size in (4, 4, 2))
    nothing, state = np.zeros((2, 5, 3)), rng.standard_normal((2, 3, 4, 2))
    inputs = gated_delta_rule.Inputs(q, k, v, nothing, nothing)
    y, _ = gated_delta_rule.forward({}, WithState(inputs, state))
    np.testing.assert_array_equal(y.state, state)
