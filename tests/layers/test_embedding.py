import numpy as np
import pytest

from functional_lm.layers import embedding
from functional_lm.testing import certify

test_certified = certify("embedding")


@pytest.mark.parametrize("vocab_size", [3, 1009])
def test_repeated_tokens_accumulate(vocab_size):
    params = {"weight": np.zeros((vocab_size, 2))}
    _, residuals = embedding.forward(params, np.array([[2, 0, 2], [2, 2, 0]]))
    g = np.arange(12.0).reshape(2, 3, 2)
    d_params, d_tokens = embedding.vjp(residuals, g)
    assert d_tokens is None
    np.testing.assert_array_equal(d_params["weight"][0], g[0, 1] + g[1, 2])
    np.testing.assert_array_equal(d_params["weight"][1], [0, 0])
    np.testing.assert_array_equal(d_params["weight"][2], g[0, 0] + g[0, 2] + g[1, 0] + g[1, 1])


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


def test_unsigned_tokens_are_tokens():
    y, _ = embedding.forward({"weight": np.arange(10.0).reshape(5, 2)}, np.array([4], np.uint8))
    np.testing.assert_array_equal(y, [[8, 9]])


def test_init_has_the_variance_of_gpt2():
    weight = embedding.init((0,), vocab_size=500, d_model=100)["weight"]
    assert weight.std() == pytest.approx(0.02, rel=0.01)
    assert weight.dtype == np.float32
