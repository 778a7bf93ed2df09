import numpy as np
import pytest

from functional_lm import prng


def test_the_same_key_gives_the_same_numbers():
    np.testing.assert_array_equal(prng.normal((5, 1), (7,)), prng.normal((5, 1), (7,)))


def test_keys_that_plain_seeds_would_confuse_differ():
    keys = [(5,), (5, 0), (5, 0, 0), (0, 5), (5, 1), (6,), (2**32,), (0, 1), (0, 1, 0)]
    draws = {prng.normal(key, (4,), dtype=np.float64).tobytes() for key in keys}
    assert len(draws) == len(keys)


def test_float32_is_float64_rounded():
    exact = prng.normal((0,), (1000,), scale=0.3, dtype=np.float64)
    single = prng.normal((0,), (1000,), scale=0.3, dtype=np.float32)
    np.testing.assert_array_equal(single, exact.astype(np.float32))
    assert exact.std() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (3, TypeError, r"got 3; pass \(3,\)"),
        ([3], TypeError, "tuple of ints"),
        ((), ValueError, "at least a seed"),
        ((-1,), ValueError, r"key\[0\] must lie in"),
        ((0, 2**32), ValueError, r"key\[1\] must lie in"),
        ((0.5,), TypeError, "tuple of ints"),
        ((True,), TypeError, "tuple of ints"),
    ],
)
def test_bad_keys_are_named(key, error, says):
    with pytest.raises(error, match=says):
        prng.normal(key, (2,))


def test_no_key_gives_zeros_that_take_no_memory():
    zeros = prng.normal(None, (2**20, 2**20), dtype=np.float64)
    assert zeros.shape == (2**20, 2**20)
    assert zeros.dtype == np.float64
    assert zeros.base.nbytes == 8
    assert not zeros[:2, :2].any()


def test_no_key_has_no_children():
    assert prng.fold_in(None, 3) is None
    assert prng.fold_in((1,), 3) == (1, 3)


def test_ranges():
    assert set(prng.integers((0,), (1000,), low=2, high=5)) == {2, 3, 4}
    uniform = prng.uniform((0,), (1000,))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert not prng.bernoulli((0,), (1000,), p=0.0).any()
    assert prng.bernoulli((0,), (1000,), p=1.0).all()
    assert prng.bernoulli((0,), (1000,), p=0.25).mean() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("start", [0, 1, 4, 7])
def test_a_draw_can_start_within_a_larger_one(start):
    whole = prng.bernoulli((3, 1), (5, 7), p=0.5).reshape(-1)
    part = prng.bernoulli((3, 1), (2, 3), p=0.5, start=start)
    np.testing.assert_array_equal(part.reshape(-1), whole[start : start + 6])
