import numpy as np

from functional_lm.models import short_convolution
from functional_lm.testing import certify

test_certified = certify("short_convolution")

PARAMS = {"weight": np.random.default_rng(0).standard_normal((4, 3))}
X = np.random.default_rng(1).standard_normal((3, 9, 3))


def test_it_starts_as_the_identity():
    params = short_convolution.init((0,), d_model=3, dtype=np.float64)
    assert params["weight"].shape == (4, 3)
    np.testing.assert_array_equal(short_convolution.forward(params, X)[0], X)


def test_steps_equal_the_forward_and_padding_changes_no_state():
    y, _ = short_convolution.forward(PARAMS, X)
    lengths = np.array([1, 2, 5])
    cache = short_convolution.init_cache(PARAMS, 3, 9)
    first, cache = short_convolution.step(PARAMS, X[:, :5], cache, lengths=lengths)
    np.testing.assert_allclose(first, y[:, :5], rtol=0, atol=1e-14)
    rows = np.arange(3)
    for t in range(4):
        found, cache = short_convolution.step(PARAMS, X[rows, lengths + t][:, None], cache)
        np.testing.assert_allclose(found[:, 0], y[rows, lengths + t], rtol=0, atol=1e-14)
