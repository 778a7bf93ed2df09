import numpy as np
import pytest

from functional_lm.layers import layer_norm
from functional_lm.testing import certify

test_certified = certify("layer_norm")


def test_a_constant_row_gives_the_bias():
    params = {"scale": np.ones(3), "bias": np.array([1.0, 2.0, 3.0])}
    y, _ = layer_norm.forward(params, np.full((1, 3), 7.0))
    np.testing.assert_array_equal(y[0], params["bias"])


def test_the_bias_is_a_choice_of_init():
    assert set(layer_norm.init(d_model=3)) == {"scale", "bias"}
    assert set(layer_norm.init(d_model=3, bias=False)) == {"scale"}


def test_a_negative_eps_is_refused():
    with pytest.raises(ValueError, match="eps must be finite"):
        layer_norm.forward({"scale": np.ones(3)}, np.ones((1, 3)), eps=-1e-6)
