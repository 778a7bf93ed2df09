import numpy as np
import pytest

from functional_lm.layers import gated, silu, swiglu
from functional_lm.testing import certify

test_certified = certify("gated")


def test_with_silu_it_is_swiglu():
    x, g = np.random.default_rng(0).standard_normal((2, 3, 5, 14))
    y, residuals = gated.forward({}, x, activation=silu)
    expected, others = swiglu.forward({}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    d_x, other = (
        layer.vjp(r, g[..., :7])[1] for layer, r in ((gated, residuals), (swiglu, others))
    )
    np.testing.assert_allclose(d_x, other, rtol=1e-12, atol=1e-15)


def test_rows_of_odd_size_are_refused():
    with pytest.raises(ValueError, match="even size, gate and value: got 3"):
        gated.forward({}, np.ones((2, 3), np.float32), activation=silu)
