import math

import numpy as np
import pytest

from functional_lm import numerics

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_accurate_everywhere(dtype):
    x = np.concatenate([np.linspace(-80, 80, 1001), [-1e30, 1e30]]).astype(dtype)
    exact = x.astype(np.longdouble)
    with np.errstate(under="ignore", over="ignore"):
        expected = 1 / (1 + np.exp(-exact))
        sigma = numerics.sigmoid(x)
    assert sigma.dtype == dtype
    np.testing.assert_allclose(
        sigma.astype(float), expected.astype(float), rtol=4 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize(("dtype", "far"), [(np.float32, 13.0), (np.float64, 38.0)])
def test_normal_cdf_is_accurate_everywhere(dtype, far):
    x = np.linspace(-far, far, 10001).astype(dtype)
    expected = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    cdf, eps = numerics.normal_cdf(x), np.finfo(dtype).eps
    assert cdf.dtype == dtype
    np.testing.assert_allclose(cdf, expected, rtol=0, atol=2 * eps)
    near = abs(x) < 5
    np.testing.assert_allclose(cdf[near], expected[near], rtol=50 * eps)  # exp of −12.5 rounded


def test_sum_rows_is_more_accurate_than_sum():
    x = RNG.standard_normal((65536, 7)).astype(np.float32)
    exact = x.sum(axis=0, dtype=np.float64)
    ours = np.linalg.norm(numerics.sum_rows(x) - exact)
    plain = np.linalg.norm(x.sum(axis=0) - exact)
    assert ours < plain / 2


def test_smooth_keeps_a_line_and_removes_noise_and_spikes():
    steps = np.arange(400.0)
    np.testing.assert_allclose(numerics.smooth(2 * steps, 11)[5:-5], 2 * steps[5:-5])
    assert numerics.smooth(RNG.standard_normal(400), 11).std() < 0.5
    spike = np.ones(400)
    spike[100] = 1e30
    np.testing.assert_allclose(numerics.smooth(spike, 11)[106:], 1.0)
    assert numerics.smooth([3.0, 1.0, 2.0], 1).tolist() == [3.0, 1.0, 2.0]
    assert numerics.smooth([3.0, 1.0, 2.0], 9).tolist() == [2.0, 2.0, 2.0]
    assert numerics.smooth([], 5).size == 0
