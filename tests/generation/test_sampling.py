import numpy as np
import pytest

from functional_lm.generation import keep_top_k, sample, scale_by_temperature
from functional_lm.numerics import softmax

LOGITS = np.array([0.5, 2.0, -1.0, 1.5])


def test_sampling_follows_the_distribution_and_the_key():
    draws = [sample((0, i), LOGITS) for i in range(4000)]
    share = np.bincount(draws, minlength=4) / 4000
    np.testing.assert_allclose(share, softmax(LOGITS), atol=0.03)
    assert draws == [sample((0, i), LOGITS) for i in range(4000)]
    assert draws != [sample((1, i), LOGITS) for i in range(4000)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_temperature(dtype):
    logits = LOGITS.astype(dtype)
    scaled = scale_by_temperature(logits, 0.5)
    assert scaled.dtype == dtype
    np.testing.assert_allclose(softmax(scaled), softmax(2 * LOGITS), rtol=1e-5)
    greedy = scale_by_temperature(logits, 0)
    assert {sample((i,), greedy) for i in range(50)} == {1}


def test_a_tiny_temperature_is_greedy():
    scaled = scale_by_temperature(LOGITS, 1e-30)
    assert {sample((i,), scaled) for i in range(50)} == {1}


def test_top_k_keeps_k():
    np.testing.assert_array_equal(keep_top_k(LOGITS, 2), [-np.inf, 2.0, -np.inf, 1.5])
    np.testing.assert_array_equal(keep_top_k(LOGITS, 9), LOGITS)
    np.testing.assert_array_equal(keep_top_k(np.ones(3), 1), [1, -np.inf, -np.inf])
    assert {sample((i,), keep_top_k(LOGITS, 2)) for i in range(200)} == {1, 3}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: scale_by_temperature(LOGITS, -1.0), "temperature must lie in"),
        (lambda: keep_top_k(LOGITS, 0), "top_k must be at least 1"),
    ],
)
def test_bad_settings_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
