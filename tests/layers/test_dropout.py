import numpy as np
import pytest

from functional_lm.layers import dropout
from functional_lm.testing import certify

test_certified = certify("dropout")

X = np.random.default_rng(0).standard_normal((100, 100))


def test_keeps_a_share_and_scales_it():
    y, _ = dropout.forward({}, X, rate=0.3, key=(0,))
    kept = y != 0
    assert kept.mean() == pytest.approx(0.7, abs=0.02)
    np.testing.assert_allclose(y[kept], X[kept] / 0.7, rtol=1e-15)


def test_the_key_decides():
    first, _ = dropout.forward({}, X, rate=0.5, key=(0,))
    again, _ = dropout.forward({}, X, rate=0.5, key=(0,))
    other, _ = dropout.forward({}, X, rate=0.5, key=(0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("settings", [{"rate": 0.0, "key": (0,)}, {"rate": 0.5}])
def test_the_identity_copies_nothing(settings):
    y, residuals = dropout.forward({}, X, **settings)
    assert y is X
    g = np.ones_like(X)
    assert dropout.vjp(residuals, g)[1] is g


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"rate": 1.5, "key": (0,)}, ValueError, "rate must lie in"),
        ({"rate": -0.1}, ValueError, "rate must lie in"),
        ({"rate": 0.5, "key": 3}, TypeError, r"pass \(3,\)"),
        ({"rate": 0.0, "key": 3}, TypeError, r"pass \(3,\)"),
        ({"rate": 1.0000001}, ValueError, "1.0000001"),
    ],
)
def test_bad_settings_are_named(settings, error, says):
    with pytest.raises(error, match=says):
        dropout.forward({}, X, **settings)
