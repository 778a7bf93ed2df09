import numpy as np
import pytest

from functional_lm.layers import learned_positions
from functional_lm.testing import certify

test_certified = certify("learned_positions")

PARAMS = {"weight": np.arange(10.0).reshape(5, 2)}


def test_each_position_has_its_row():
    y, _ = learned_positions.forward(PARAMS, np.zeros((1, 2, 2)), positions=np.array([3, 1]))
    np.testing.assert_array_equal(y, [[[6, 7], [2, 3]]])


def test_init_has_the_variance_of_gpt2():
    weight = learned_positions.init((0,), max_seq_len=500, d_model=100)["weight"]
    assert weight.std() == pytest.approx(0.01, rel=0.01)
    assert weight.dtype == np.float32


@pytest.mark.parametrize(
    ("positions", "error", "says"),
    [
        (np.arange(3) + 3, ValueError, r"\[0, 5\): got 5 at position \(2,\); shorten the text"),
        (np.array([0, -1, 2]), ValueError, "got -1"),
        (np.arange(1), ValueError, r"shape \(3,\) or \(2, 3\): got \(1,\)"),
        (np.zeros((1, 3), int), ValueError, r"got \(1, 3\)"),
        (np.arange(3.0), TypeError, "float64"),
        ([0, 1, 2], TypeError, "list"),
    ],
)
def test_bad_positions_are_named(positions, error, says):
    with pytest.raises(error, match=says):
        learned_positions.forward(PARAMS, np.zeros((2, 3, 2)), positions=positions)
