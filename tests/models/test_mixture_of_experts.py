import numpy as np
import pytest

from functional_lm.compose import bind
from functional_lm.contract import Stream
from functional_lm.layers import routed_experts, swiglu
from functional_lm.models import mixture_of_experts, mlp
from functional_lm.testing import certify

test_certified = certify("mixture_of_experts")

EXPERTS = bind(routed_experts, d_ff=3, activation=swiglu)
X = np.random.default_rng(0).standard_normal((2, 5, 4))


def mixture(n_experts, **layers):
    sizes = {"d_model": 4, "n_experts": n_experts, "dtype": np.float64}
    return mixture_of_experts.init((0,), **sizes, experts=EXPERTS, **layers)


def test_one_expert_is_a_feed_forward_layer():
    params = mixture(1)
    (up,), (down,) = params["experts"]["up"], params["experts"]["down"]
    (y, auxiliary), residuals = mixture_of_experts.forward(params, X, k=1, experts=EXPERTS)
    dense = {"up": {"weight": up}, "down": {"weight": down}}
    expected, r_dense = mlp.forward(dense, X)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert auxiliary == 0
    d_params, d_x = mixture_of_experts.vjp(residuals, Stream(X, 1.0))
    d_dense, d_x_dense = mlp.vjp(r_dense, X)
    np.testing.assert_allclose(d_x, d_x_dense, rtol=1e-12)
    np.testing.assert_allclose(d_params["experts"]["up"][0], d_dense["up"]["weight"], rtol=1e-12)
    assert not d_params["router"]["weight"].any()


def test_tied_tokens_go_to_the_first_experts_and_the_others_have_zero_gradients():
    params = mixture(5)
    params["router"]["weight"] = np.zeros((4, 5))
    _, residuals = mixture_of_experts.forward(params, X, k=2, experts=EXPERTS)
    assert mixture_of_experts.expert_shares(residuals).tolist() == [0.5, 0.5, 0, 0, 0]
    d_params, _ = mixture_of_experts.vjp(residuals, Stream(X, 1.0))
    for d_weight in d_params["experts"].values():
        assert d_weight.any(axis=(1, 2)).tolist() == [True, True, False, False, False]


def test_idle_weights_are_those_of_the_other_experts():
    params = mixture(5)
    assert mixture_of_experts.idle_weights(params, k=2) == 3 * (4 * 6 + 3 * 4)


def test_a_shared_layer_of_another_width_is_named():
    shared = bind(mlp, d_model=4, d_ff=3)
    params = mixture(2, shared=shared)
    params["shared"]["down"]["weight"] = np.zeros((3, 7))
    with pytest.raises(ValueError, match=r"shared must keep the shape of x, .*: got \(2, 5, 7\)"):
        mixture_of_experts.forward(params, X, k=1, experts=EXPERTS, shared=shared)
