import numpy as np
import pytest

from functional_lm.optimizers import chain, clip_by_global_norm
from functional_lm.speed.entrywise import global_norm


def clip(grads, max_norm=1.0):
    optimizer = clip_by_global_norm(max_norm)
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    return updates


def test_a_long_gradient_gets_the_norm_asked_for():
    grads = {"a": np.full(3, 4.0), "b": (np.full((2, 2), -3.0),)}
    clipped = clip(grads, 2.0)
    assert global_norm(clipped) == pytest.approx(2.0, rel=1e-14)
    np.testing.assert_allclose(clipped["a"] / clipped["a"][0], 1)
    assert clipped["b"][0][0, 0] / clipped["a"][0] == pytest.approx(-0.75)


def test_a_norm_that_is_known_is_not_computed_again():
    grads = {"a": np.array([3.0, 4.0])}
    updates, _ = clip_by_global_norm(1.0).update(grads, (), grads, 50.0)
    np.testing.assert_allclose(updates["a"], [0.06, 0.08])
    chained = chain(clip_by_global_norm(1.0), clip_by_global_norm(0.5))  # known to the first alone
    updates, _ = chained.update(grads, chained.init(grads), grads, 5.0)
    np.testing.assert_allclose(updates["a"], [0.3, 0.4])


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_short_gradient_passes_unchanged(value):
    grads = {"a": np.full(3, value, np.float32)}
    assert clip(grads) is grads


@pytest.mark.parametrize(("norm", "clipped"), [(0.999, False), (1.0, False), (1.001, True)])
def test_the_bound_itself(norm, clipped):
    grads = {"a": np.array([norm])}
    assert (clip(grads) is not grads) == clipped
    assert clip(grads)["a"][0] == pytest.approx(min(norm, 1.0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_names_its_leaf(value):
    grads = {"a": np.ones(3), "blocks": ({"w": np.array([1.0, value, 2.0])},)}
    with pytest.raises(FloatingPointError, match=rf"blocks\.0\.w has 1 entry .* {value};"):
        clip(grads)


def test_a_negative_norm_is_refused():
    with pytest.raises(ValueError, match="max_norm must be finite"):
        clip_by_global_norm(-1.0)
