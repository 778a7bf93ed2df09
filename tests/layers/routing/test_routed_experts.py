import numpy as np
import pytest

from functional_lm.layers import routed_experts, silu, swiglu
from functional_lm.layers.routing.routed_experts import Routed
from functional_lm.testing import certify

test_certified = certify("routed_experts")

D, F, E = 3, 5, 4
PARAMS = routed_experts.init((0,), n_experts=E, d_model=D, d_ff=F, dtype=np.float64)


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_each_row_gets_the_weighted_sum_of_its_experts():
    x, weights = draw(7, D), draw(7, 2)
    experts = np.random.default_rng(1).permuted(np.tile(np.arange(E), (7, 1)), axis=1)[:, :2]
    side = {"experts": experts, "activation": swiglu}
    y, _ = routed_experts.forward(PARAMS, Routed(x, weights), **side)
    for n in range(7):
        each = [
            swiglu.forward({}, x[n] @ PARAMS["up"][e])[0] @ PARAMS["down"][e] for e in experts[n]
        ]
        np.testing.assert_allclose(y[n], weights[n] @ each, rtol=1e-12)


def test_an_expert_without_rows_has_zero_gradients_and_no_other():
    side = {"experts": np.array([[0, 3], [3, 0], [0, 3]]), "activation": swiglu}
    y, residuals = routed_experts.forward(PARAMS, Routed(draw(3, D), draw(3, 2)), **side)
    d_params, _ = routed_experts.vjp(residuals, np.ones_like(y))
    for d_weight in d_params.values():
        assert d_weight.any(axis=(1, 2)).tolist() == [True, False, False, True]
    assert residuals.counts.tolist() == [3, 0, 0, 3]


def test_the_order_of_the_rows_changes_nothing():
    x, weights = draw(11, D), draw(11, 2)
    experts = np.arange(22).reshape(11, 2) % E
    other = np.random.default_rng(1).permutation(11)
    y, _ = routed_experts.forward(PARAMS, Routed(x, weights), experts=experts, activation=swiglu)
    moved, _ = routed_experts.forward(
        PARAMS, Routed(x[other], weights[other]), experts=experts[other], activation=swiglu
    )
    np.testing.assert_allclose(moved, y[other], rtol=1e-13)


def test_init_draws_each_matrix_with_its_own_variance():
    sizes = {"n_experts": 5, "d_model": 100, "d_ff": 60}
    params = routed_experts.init((0,), **sizes, output_scale=0.5)
    assert params["up"].shape == (5, 100, 120)
    assert params["up"].std() == pytest.approx((2 / 160) ** 0.5, rel=0.02)
    assert params["down"].std() == pytest.approx((2 / 160) ** 0.5 / 2, rel=0.02)
    assert routed_experts.init((0,), **sizes, gated=False)["up"].shape == (5, 100, 60)


@pytest.mark.parametrize(
    ("x", "experts", "error", "says"),
    [
        (Routed(draw(2, D), draw(2, 2)), np.full((2, 2), E), ValueError, r"\[0, 4\): got 4"),
        (Routed(draw(2, D), draw(2, 2)), np.full((2, 2), -1), ValueError, "got -1"),
        (Routed(draw(2, D), draw(2, 2)), np.full((2, 1), 0), ValueError, "like the weights"),
        (Routed(draw(3, D), draw(2, 2)), np.full((2, 2), 0), ValueError, "beside x"),
        (Routed(draw(2, D), draw(2, 2)), np.zeros((2, 2)), TypeError, "experts must be integers"),
        (draw(2, D), np.full((2, 2), 0), TypeError, "x must be a Routed: got ndarray"),
        (Routed(draw(2, 4), draw(2, 2)), np.full((2, 2), 0), ValueError, "x must have shape"),
    ],
)
def test_bad_input_is_named(x, experts, error, says):
    with pytest.raises(error, match=says):
        routed_experts.forward(PARAMS, x, experts=experts, activation=silu)
