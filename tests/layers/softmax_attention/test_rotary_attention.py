import numpy as np
import pytest

from functional_lm.layers import rotary_attention
from functional_lm.testing import certify

test_certified = certify("rotary_attention")

H, G, K = 6, 2, 4


@pytest.mark.parametrize("shift", [-1e4, -300.0, -25.0, 25.0, 300.0, 1e4])
def test_a_constant_added_to_all_scores_of_a_row_changes_nothing(shift):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 70, 3, 4)).astype(np.float32)
    still = {"n_heads": 1, "positions": np.zeros(70)}
    x[:, :, :2, 3] = 0.0
    plain, _ = rotary_attention.forward({}, x.reshape(1, 70, 12), **still)
    x[:, :, 0, 3] = shift * 2.0  # over √4
    x[:, :, 1, 3] = 1.0
    shifted, _ = rotary_attention.forward({}, x.reshape(1, 70, 12), **still)
    np.testing.assert_allclose(shifted, plain, rtol=0, atol=1e-6 + 3e-7 * abs(shift))


def test_later_tokens_do_not_show():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 150, 12)).astype(np.float32)
    other = x.copy()
    other[:, 100:] = 1e6
    side = {"n_heads": 1, "positions": np.arange(150)}
    y, _ = rotary_attention.forward({}, x, **side)
    changed, _ = rotary_attention.forward({}, other, **side)
    np.testing.assert_array_equal(y[:, :64], changed[:, :64])
    np.testing.assert_allclose(y[:, 64:100], changed[:, 64:100], rtol=1e-5, atol=1e-6)


def test_nan_stays_nan():
    x = np.ones((1, 3, 12))
    x[0, 1, 0] = np.nan
    with np.errstate(invalid="ignore"):
        y, _ = rotary_attention.forward({}, x, n_heads=1, positions=np.arange(3))
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1]).all()


@pytest.mark.parametrize(
    ("columns", "settings", "says"),
    [
        (40, {"n_heads": 6, "n_kv_heads": 4}, "must divide n_heads: got 40 columns"),
        (41, {"n_heads": 6, "n_kv_heads": 2}, "got 41 columns, n_heads=6, n_kv_heads=2"),
        (0, {"n_heads": 6, "n_kv_heads": 2}, "got 0 columns"),
        (30, {"n_heads": 6, "n_kv_heads": 2}, "even head size: got K=3; try 2 or 4"),
        (40, {"n_heads": 0}, "n_heads must be at least 1"),
    ],
)
def test_bad_settings_are_named(columns, settings, says):
    with pytest.raises(ValueError, match=says):
        rotary_attention.forward({}, np.ones((1, 5, columns)), positions=np.arange(5), **settings)
