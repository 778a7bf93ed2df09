import numpy as np

from functional_lm.layers import delta_gates
from functional_lm.testing import certify

test_certified = certify("delta_gates")


def test_heads_start_with_memories_of_very_different_length():
    params = delta_gates.init((0,), n_heads=200, dtype=np.float64)
    gates, _ = delta_gates.forward(params, delta_gates.Gates(*np.zeros((2, 1, 200))))
    np.testing.assert_array_equal(gates.beta, 0.5)
    steps = -gates.log_decay / np.exp(params["A_log"])
    assert 0.001 <= steps.min() < 0.0015
    assert 0.07 < steps.max() <= 0.1
    assert params["A_log"].min() >= 0
    assert 2.5 < params["A_log"].max() < np.log(16)
