import numpy as np
import pytest

from functional_lm.contract import WithState
from functional_lm.layers import causal_convolution
from functional_lm.testing import certify

test_certified = certify("causal_convolution")

rng = np.random.default_rng(0)
PARAMS = {"weight": rng.standard_normal((4, 3)), "bias": rng.standard_normal(3)}
X, STATE = rng.standard_normal((2, 9, 3)), rng.standard_normal((2, 3, 3))


@pytest.mark.parametrize("cuts", [(4,), (1, 2, 3), (0, 8)])
def test_a_text_may_come_in_pieces(cuts):
    whole, _ = causal_convolution.forward(PARAMS, WithState(X, STATE))
    state, pieces = STATE, []
    for piece in np.split(X, cuts, axis=1):
        y, _ = causal_convolution.forward(PARAMS, WithState(piece, state))
        pieces.append(y.x)
        state = y.state
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole.x, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(state, whole.state)


def test_the_state_after_part_of_each_text():
    lengths = np.array([2, 7])
    state = causal_convolution.state_after(WithState(X, STATE), lengths)
    for i, length in enumerate(lengths):
        one = WithState(X[i : i + 1, :length], STATE[i : i + 1])
        y, _ = causal_convolution.forward(PARAMS, one)
        np.testing.assert_array_equal(state[i : i + 1], y.state)


def test_the_output_varies_as_the_input():
    params = causal_convolution.init((0,), d_model=500, width=5, bias=True)
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "weight": (5, 500),
        "bias": (500,),
    }
    assert params["weight"].std() == pytest.approx(5**-0.5, rel=0.05)
    assert not params["bias"].any()


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (X, TypeError, r"WithState\(x, state\): got ndarray; pass a state of zeros"),
        (WithState(X, STATE[:, 1:]), ValueError, "state must have shape .* W-1=3,"),
        (WithState(X, STATE.astype(np.float32)), TypeError, "x and state must share one dtype"),
    ],
)
def test_bad_input_is_named(x, error, says):
    with pytest.raises(error, match=says):
        causal_convolution.forward(PARAMS, x)
