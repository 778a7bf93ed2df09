import numpy as np

from functional_lm.compose import bind, freeze
from functional_lm.layers import dora, linear
from functional_lm.testing import certify

test_certified = certify("dora")


def test_a_frozen_base_gets_no_gradient():
    layer = bind(dora, base=bind(linear, bias=True), alpha=4.0, rank=2)
    params = layer.init((0,), d_in=5, d_out=7)
    x = np.random.default_rng(0).standard_normal((3, 5), np.float32)
    frozen = freeze(layer, params, lambda path: "base" not in path)
    (own, d_x), (all_of_it, expected) = (
        one.vjp(one.forward(params, x)[1], np.ones((3, 7), np.float32)) for one in (frozen, layer)
    )
    assert own["base"] == {"weight": None, "bias": None}
    for name in ("a", "b", "magnitude"):
        np.testing.assert_array_equal(own[name], all_of_it[name])
    np.testing.assert_allclose(d_x, expected, rtol=1e-6)
