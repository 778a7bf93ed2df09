import numpy as np
import pytest

from functional_lm.layers import rms_norm
from functional_lm.testing import certify

test_certified = certify("rms_norm")


def test_rows_have_the_root_mean_square_one():
    x = np.random.default_rng(0).standard_normal((3, 50)) * 1000
    y, _ = rms_norm.forward(rms_norm.init(d_model=50, dtype=np.float64), x)
    np.testing.assert_allclose(np.sqrt(np.mean(y**2, axis=-1)), 1, rtol=1e-12)


def test_eps_stands_inside_the_root():
    y, _ = rms_norm.forward({"scale": np.ones(1)}, np.full((1, 1), 3.0), eps=16.0)
    assert y[0, 0] == pytest.approx(3 / 5)


def test_a_zero_row_stays_zero():
    y, residuals = rms_norm.forward({"scale": np.ones(3)}, np.zeros((1, 3)))
    _, d_x = rms_norm.vjp(residuals, np.ones((1, 3)))
    assert not y.any()
    np.testing.assert_allclose(d_x, 1e3)  # 1/√eps


@pytest.mark.parametrize("eps", [-1e-6, np.nan, np.inf])
def test_a_bad_eps_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be finite"):
        rms_norm.forward({"scale": np.ones(3)}, np.ones((1, 3)), eps=eps)
