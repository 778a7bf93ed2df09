import numpy as np
import pytest

from functional_lm.layers import sigmoid
from functional_lm.testing import certify

test_certified = certify("sigmoid")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_it_is_zero_or_one(dtype):
    y, residuals = sigmoid.forward({}, np.array([-1e30, -1e4, 0, 1e4, 1e30], dtype))
    np.testing.assert_array_equal(y, np.array([0, 0, 0.5, 1, 1], dtype))
    _, d_x = sigmoid.vjp(residuals, np.ones(5, dtype))
    np.testing.assert_array_equal(d_x, np.array([0, 0, 0.25, 0, 0], dtype))
