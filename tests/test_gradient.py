import numpy as np
import pytest

from functional_lm import value_and_grad
from functional_lm.layers import linear
from functional_lm.losses import cross_entropy


def test_the_cotangent_of_a_loss_is_one():
    x = np.array([[0.0, 0.0]])
    loss, d_params = value_and_grad(cross_entropy, {}, x, targets=np.array([1]))
    assert loss == pytest.approx(np.log(2))
    assert d_params == {}


def test_an_output_that_is_no_scalar_is_refused():
    params = linear.init((0,), d_in=2, d_out=3)
    with pytest.raises(ValueError, match=r"scalar loss: got shape \(4, 3\)"):
        value_and_grad(linear, params, np.ones((4, 2), np.float32))
