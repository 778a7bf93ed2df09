import numpy as np
import pytest

from functional_lm.layers import layer_norm
from functional_lm.testing import certify

test_certified = certify("layer_norm")


def test_rows_have_mean_zero_and_variance_one():
    x = np.random.default_rng(0).standard_normal((3, 50)) * 1000 + 70
    y, _ = layer_norm.forward(layer_norm.init(d_model=50, dtype=np.float64), x)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(axis=-1), 1, rtol=1e-10)


def test_eps_stands_inside_the_root():
    params = layer_norm.init(d_model=2, bias=False, dtype=np.float64)
    y, _ = layer_norm.forward(params, np.array([[4.0, 10.0]]), eps=16.0)
    np.testing.assert_allclose(y, [[-3 / 5, 3 / 5]])


def test_a_constant_row_gives_the_bias():
    params = {"scale": np.ones(3), "bias": np.array([1.0, 2.0, 3.0])}
    y, _ = layer_norm.forward(params, np.full((1, 3), 7.0))
    np.testing.assert_array_equal(y[0], params["bias"])


def test_a_negative_eps_is_refused():
    with pytest.raises(ValueError, match="eps must be finite"):
        layer_norm.forward({"scale": np.ones(3)}, np.ones((1, 3)), eps=-1e-6)
