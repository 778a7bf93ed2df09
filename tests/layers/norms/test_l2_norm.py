import numpy as np

from functional_lm.layers import l2_norm
from functional_lm.testing import certify

test_certified = certify("l2_norm")


def test_rows_have_length_one():
    x = np.random.default_rng(0).standard_normal((5, 7))
    y, _ = l2_norm.forward({}, x, eps=0.0)
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), 1, rtol=1e-14)
    np.testing.assert_allclose(y * np.linalg.norm(x, axis=-1, keepdims=True), x, rtol=1e-14)
