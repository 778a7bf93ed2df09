import numpy as np

from functional_lm.layers import bottleneck, linear
from functional_lm.testing import certify

test_certified = certify("bottleneck")


def test_starts_as_its_base():
    params = bottleneck.init((0,), base=linear, d_in=5, d_out=7, size=3)
    x = np.random.default_rng(0).standard_normal((2, 5), np.float32)
    expected, _ = linear.forward(params["base"], x)
    np.testing.assert_array_equal(bottleneck.forward(params, x, base=linear)[0], expected)
