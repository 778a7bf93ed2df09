import numpy as np
import pytest

from functional_lm.layers import rms_norm
from functional_lm.testing import certify

test_certified = certify("rms_norm")


def test_a_zero_row_stays_zero():
    y, residuals = rms_norm.forward({"scale": np.ones(3)}, np.zeros((1, 3)))
    _, d_x = rms_norm.vjp(residuals, np.ones((1, 3)))
    assert not y.any()
    np.testing.assert_allclose(d_x, 1e3)  # 1/√eps


@pytest.mark.parametrize("eps", [-1e-6, np.nan, np.inf])
def test_a_bad_eps_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be finite"):
        rms_norm.forward({"scale": np.ones(3)}, np.ones((1, 3)), eps=eps)
