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


def test_an_offset_moves_the_parameter_alone():
    x = np.random.default_rng(0).standard_normal((3, 5))
    params = rms_norm.init(d_model=5, offset=1.0, dtype=np.float64)
    assert not params["scale"].any()
    y, _ = rms_norm.forward(params, x, offset=1.0)
    np.testing.assert_array_equal(y, rms_norm.forward({"scale": np.ones(5)}, x)[0])


@pytest.mark.parametrize("eps", [-1e-6, np.nan, np.inf])
def test_a_bad_eps_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be finite"):
        rms_norm.forward({"scale": np.ones(3)}, np.ones((1, 3)), eps=eps)
