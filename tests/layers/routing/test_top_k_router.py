import jax
import numpy as np
import pytest

from functional_lm.layers import top_k_router
from functional_lm.layers.routing.top_k_router import Gates
from functional_lm.testing import certify

test_certified = certify("top_k_router")


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_equal_logits_the_lower_number_is_chosen_as_in_jax(dtype, k):
    x = np.round(draw(300, 7)).astype(dtype) + 0.0  # many ties, no −0
    np.testing.assert_array_equal(top_k_router.choose(x, k=k), jax.lax.top_k(x, k)[1])


def test_without_differences_the_first_experts_are_chosen():
    chosen = top_k_router.choose(np.zeros((2, 3, 5)), k=2)
    np.testing.assert_array_equal(chosen, np.broadcast_to([0, 1], (2, 3, 2)))


def test_even_use_has_a_balance_loss_of_one():
    x = 1e3 * np.eye(4)[np.arange(8) % 4]
    gates, _ = top_k_router.forward({}, x, experts=top_k_router.choose(x, k=1), balance_loss=1.0)
    assert gates.auxiliary == pytest.approx(1)
    gates, _ = top_k_router.forward({}, x, experts=np.zeros((8, 1), int), balance_loss=1.0)
    assert gates.auxiliary == pytest.approx(1)  # of even probabilities, whatever was chosen
    x = np.tile([1e3, 0, 0, 0], (8, 1))
    gates, _ = top_k_router.forward({}, x, experts=np.zeros((8, 1), int), balance_loss=0.5)
    assert gates.auxiliary == pytest.approx(0.5 * 4)  # all at one of four experts


@pytest.mark.parametrize("k", [1, 3])
def test_the_weights_are_those_of_all_experts_renormalised(k):
    x = 5 * draw(11, 7)
    experts = top_k_router.choose(x, k=k)
    gates, residuals = top_k_router.forward({}, x, experts=experts)
    chosen = np.take_along_axis(residuals.probs, experts, axis=-1)
    np.testing.assert_allclose(gates.weights, chosen / chosen.sum(-1, keepdims=True), rtol=1e-13)
    assert gates.auxiliary == 0


def test_one_choice_gives_the_logits_no_gradient_through_its_weight():
    x = draw(5, 7)
    experts = top_k_router.choose(x, k=1)
    _, residuals = top_k_router.forward({}, x, experts=experts, balance_loss=1.0)
    _, d_x = top_k_router.vjp(residuals, Gates(draw(5, 1), 0.0))
    assert not d_x.any()
    _, d_x = top_k_router.vjp(residuals, Gates(np.zeros((5, 1)), 1.0))
    assert d_x.any(axis=1).all()


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"experts": np.array([[0, 5]])}, ValueError, r"experts must lie in \[0, 5\): got 5"),
        ({"experts": np.array([[-1]])}, ValueError, "got -1 .*pass what choose returns"),
        ({"experts": np.array([[3, 3]])}, ValueError, "experts must differ .*pass what choose ret"),
        ({"experts": np.array([0, 1])}, ValueError, r"experts must have shape \(\.\.\., k\)"),
        ({"experts": np.ones((1, 2))}, TypeError, "experts must be integers: got float64"),
        ({"balance_loss": -1.0}, ValueError, "balance_loss must be finite and at least 0"),
        ({"z_loss": "much"}, TypeError, "z_loss must be a number"),
    ],
)
def test_bad_input_is_named(settings, error, says):
    with pytest.raises(error, match=says):
        top_k_router.forward({}, draw(1, 5), **{"experts": np.array([[0, 1]]), **settings})


@pytest.mark.parametrize("k", [0, 6])
def test_a_k_that_there_are_not_experts_for_is_refused(k):
    with pytest.raises(ValueError, match=r"k must be at (least 1|most 5): got"):
        top_k_router.choose(draw(2, 5), k=k)
