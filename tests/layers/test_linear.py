import numpy as np
import pytest

from functional_lm.layers import linear
from functional_lm.testing import certify

test_certified = certify("linear")


def test_init_has_the_glorot_variance():
    params = linear.init((0,), d_in=300, d_out=500, bias=True)
    assert params["weight"].std() == pytest.approx((2 / 800) ** 0.5, rel=0.01)
    assert not params["bias"].any()


def test_maps_side_by_side_have_the_variance_of_each():
    weight = linear.init((0,), d_in=300, d_out=(500, 100))["weight"]
    assert weight.shape == (300, 600)
    assert weight[:, :500].std() == pytest.approx((2 / 800) ** 0.5, rel=0.01)
    assert weight[:, 500:].std() == pytest.approx((2 / 400) ** 0.5, rel=0.01)


def test_init_scales_the_weight():
    plain = linear.init((0,), d_in=3, d_out=5, dtype=np.float64)["weight"]
    scaled = linear.init((0,), d_in=3, d_out=5, scale=0.25, dtype=np.float64)["weight"]
    np.testing.assert_allclose(scaled, plain / 4, rtol=1e-15)


def test_no_inputs_give_the_bias():
    params = {"weight": np.ones((0, 2)), "bias": np.array([1.0, 2.0])}
    y, residuals = linear.forward(params, np.ones((3, 0)))
    np.testing.assert_array_equal(y, [[1, 2]] * 3)
    d_params, d_x = linear.vjp(residuals, np.ones((3, 2)))
    assert d_params["weight"].shape == (0, 2)
    assert d_x.shape == (3, 0)
