import numpy as np
import pytest

from functional_lm.layers import embedding
from functional_lm.testing import certify

test_certified = certify("embedding")


@pytest.mark.parametrize(
    ("tokens", "error", "says"),
    [
        (np.array([[0, 4], [7, 9]]), ValueError, r"\[0, 5\): got 7 at position \(1, 0\)"),
        (np.array([0, -1]), ValueError, r"got -1 at position \(1,\)"),
        (np.array([True, False]), TypeError, "bool"),
    ],
)
def test_bad_tokens_are_named(tokens, error, says):
    with pytest.raises(error, match=says):
        embedding.forward({"weight": np.zeros((5, 2))}, tokens)


def test_init_has_the_variance_of_gpt2():
    weight = embedding.init((0,), vocab_size=500, d_model=100)["weight"]
    assert weight.std() == pytest.approx(0.02, rel=0.01)
    assert weight.dtype == np.float32
