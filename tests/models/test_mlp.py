import numpy as np

from functional_lm.models import mlp
from functional_lm.testing import certify

test_certified = certify("mlp")


def test_each_matrix_has_its_own_variance():
    params = mlp.init((0,), d_model=200, d_ff=300, output_scale=0.5)
    up, down = params["up"]["weight"], params["down"]["weight"]
    assert (up.shape, down.shape) == ((200, 600), (300, 200))
    np.testing.assert_allclose(up.std(), (2 / 500) ** 0.5, rtol=0.02)
    np.testing.assert_allclose(down.std(), (2 / 500) ** 0.5 / 2, rtol=0.02)


def test_hidden_units_are_what_goes_down():
    params = mlp.init((0,), d_model=6, d_ff=7, dtype=np.float64)
    y, residuals = mlp.forward(params, np.random.default_rng(0).standard_normal((2, 3, 6)))
    hidden = mlp.hidden_units(residuals)
    assert hidden.shape == (2, 3, 7)
    np.testing.assert_allclose(hidden @ params["down"]["weight"], y, rtol=1e-12)
