import numpy as np
import pytest

from functional_lm.layers import linear, unembedding
from functional_lm.testing import certify

test_certified = certify("unembedding")


def test_is_the_linear_map_by_the_transpose():
    weight = np.arange(15.0).reshape(5, 3)
    x = np.arange(6.0).reshape(2, 3)
    expected, _ = linear.forward({"weight": weight.T}, x)
    y, _ = unembedding.forward({"weight": weight}, x)
    np.testing.assert_array_equal(y, expected)


def test_init_has_the_variance_of_an_embedding():
    weight = unembedding.init((0,), vocab_size=500, d_model=100)["weight"]
    assert weight.std() == pytest.approx(0.02, rel=0.01)
