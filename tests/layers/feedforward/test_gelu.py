import math

import numpy as np
import pytest

from functional_lm.layers import gelu
from functional_lm.testing import certify

test_certified = certify("gelu")


@pytest.mark.parametrize("approximate", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_it_is_the_identity_or_zero(dtype, approximate):
    x = np.array([-1e4, -50, 0, 50, 1e4], dtype)
    y, residuals = gelu.forward({}, x, approximate=approximate)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    _, d_x = gelu.vjp(residuals, np.ones(5, dtype))
    np.testing.assert_array_equal(d_x, np.array([0, 0, 0.5, 1, 1], dtype))


def test_the_forms_differ_by_less_than_a_thousandth():
    x = np.linspace(-6, 6, 1001)
    exact, approximate = (gelu.forward({}, x, approximate=a)[0] for a in (False, True))
    assert 1e-4 < abs(exact - approximate).max() < 1e-3
    assert gelu.forward({}, x)[0] is not approximate
    np.testing.assert_array_equal(gelu.forward({}, x)[0], approximate)


def test_the_exact_form_is_that_of_the_error_function():
    x = np.linspace(-6, 6, 1001)
    expected = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(gelu.forward({}, x, approximate=False)[0], expected, rtol=2e-14)
