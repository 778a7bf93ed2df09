import numpy as np

from functional_lm.layers import softmax
from functional_lm.testing import certify

test_certified = certify("softmax")


def test_survives_large_entries():
    probs, residuals = softmax.forward({}, np.array([1e4, -1e4, 1e4], np.float32))
    np.testing.assert_array_equal(probs, [0.5, 0, 0.5])
    _, d_x = softmax.vjp(residuals, np.array([1, 2, 3], np.float32))
    np.testing.assert_array_equal(d_x, [-0.5, 0, 0.5])


def test_strided_rows_are_as_accurate_as_contiguous_ones():
    x = np.random.default_rng(0).standard_normal((7, 20011)).astype(np.float32)
    for laid in (np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1]):
        probs, residuals = softmax.forward({}, laid)
        np.testing.assert_array_equal(probs, softmax.forward({}, x)[0])
        g = np.asfortranarray(x)
        np.testing.assert_array_equal(
            softmax.vjp(residuals, g)[1], softmax.vjp(softmax.forward({}, x)[1], x)[1]
        )


def test_minus_infinity_has_probability_zero():
    probs, residuals = softmax.forward({}, np.array([0.0, -np.inf, 0.0]))
    np.testing.assert_array_equal(probs, [0.5, 0, 0.5])
    assert softmax.vjp(residuals, np.ones(3))[1][1] == 0
