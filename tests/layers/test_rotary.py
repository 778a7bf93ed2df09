import numpy as np
import pytest

from functional_lm.layers import rotary
from functional_lm.testing import certify

test_certified = certify("rotary")

X = np.random.default_rng(0).standard_normal((2, 5, 3, 6))


@pytest.mark.parametrize("pairing", rotary.PAIRINGS)
def test_keeps_norms_and_position_zero(pairing):
    y, _ = rotary.forward({}, X, positions=np.arange(5), pairing=pairing)
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(X, axis=-1), rtol=1e-14)
    np.testing.assert_array_equal(y[:, 0], X[:, 0])


@pytest.mark.parametrize("pairing", rotary.PAIRINGS)
def test_scores_depend_on_relative_positions_only(pairing):
    def scores(shift):
        q, _ = rotary.forward({}, X, positions=np.arange(5) + shift, pairing=pairing)
        k, _ = rotary.forward({}, X[::-1], positions=np.arange(5) + shift, pairing=pairing)
        return np.einsum("bthk,bshk->bhts", q, k)

    np.testing.assert_allclose(scores(0), scores(1000), rtol=1e-9, atol=1e-9)


def test_the_interleaved_formula():
    y, _ = rotary.forward({}, X[:1, :1], positions=np.array([7]), theta=100.0)
    x1, x2 = X[0, 0, :, 2], X[0, 0, :, 3]
    angle = 7 * 100.0 ** (-2 / 6)
    np.testing.assert_allclose(y[0, 0, :, 2], x1 * np.cos(angle) - x2 * np.sin(angle), rtol=1e-13)
    np.testing.assert_allclose(y[0, 0, :, 3], x1 * np.sin(angle) + x2 * np.cos(angle), rtol=1e-13)


def test_the_pairings_differ_by_a_permutation():
    order = [0, 3, 1, 4, 2, 5]  # neighbours from halves
    half, _ = rotary.forward({}, X, positions=np.arange(5), pairing="half")
    interleaved, _ = rotary.forward({}, X[..., order], positions=np.arange(5))
    np.testing.assert_allclose(half[..., order], interleaved, rtol=1e-14)


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


def test_an_odd_head_size_is_refused():
    with pytest.raises(ValueError, match="even head size: got K=5; try 4 or 6"):
        rotary.forward({}, X[..., :5], positions=np.arange(5))
