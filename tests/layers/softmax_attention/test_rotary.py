import numpy as np
import pytest

from functional_lm.layers import rotary
from functional_lm.testing import certify

test_certified = certify("rotary")

X = np.random.default_rng(0).standard_normal((2, 5, 3, 6))


@pytest.mark.parametrize("pairing", rotary.PAIRINGS)
def test_scores_depend_on_relative_positions_only(pairing):
    def scores(shift):
        q, _ = rotary.forward({}, X, positions=np.arange(5) + shift, pairing=pairing)
        k, _ = rotary.forward({}, X[::-1], positions=np.arange(5) + shift, pairing=pairing)
        return np.einsum("bthk,bshk->bhts", q, k)

    np.testing.assert_allclose(scores(0), scores(1000), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"positions": np.arange(4)}, ValueError, r"got \(4,\)"),
        ({"positions": [0, 1, 2, 3, 4]}, TypeError, "list"),
        ({"positions": np.arange(5) > 2}, TypeError, "bool"),
        ({"positions": np.arange(5), "pairing": "halves"}, ValueError, "'halves'"),
        ({"positions": np.arange(5), "theta": 0.0}, ValueError, "theta"),
    ],
)
def test_bad_settings_are_named(settings, error, says):
    with pytest.raises(error, match=says):
        rotary.forward({}, X, **settings)
