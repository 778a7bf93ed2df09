import numpy as np
import pytest

from functional_lm.layers import soft_cap
from functional_lm.testing import certify

test_certified = certify("soft_cap")


def test_it_keeps_small_numbers_and_bounds_large_ones():
    y, _ = soft_cap.forward({}, np.array([-1e30, -1e-4, 0.0, 1e-4, 1e30]), cap=30.0)
    np.testing.assert_allclose(y, [-30, -1e-4, 0, 1e-4, 30], rtol=1e-10)


@pytest.mark.parametrize("cap", [0.0, -1.0, np.inf])
def test_a_cap_that_is_not_positive_is_refused(cap):
    with pytest.raises(ValueError, match="cap must be finite and at least"):
        soft_cap.forward({}, np.ones(3), cap=cap)
