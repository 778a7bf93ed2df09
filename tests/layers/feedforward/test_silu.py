import numpy as np
import pytest

from functional_lm.layers import silu
from functional_lm.testing import certify

test_certified = certify("silu")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_it_is_the_identity_or_zero(dtype):
    x = np.array([-1e30, -1e4, 0, 1e4, 1e30], dtype)
    y, residuals = silu.forward({}, x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    _, d_x = silu.vjp(residuals, np.ones(5, dtype))
    np.testing.assert_array_equal(d_x, np.array([0, 0, 0.5, 1, 1], dtype))
