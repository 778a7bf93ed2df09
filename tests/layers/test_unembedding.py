import pytest

from functional_lm.layers import unembedding
from functional_lm.testing import certify

test_certified = certify("unembedding")


def test_init_has_the_variance_of_an_embedding():
    weight = unembedding.init((0,), vocab_size=500, d_model=100)["weight"]
    assert weight.std() == pytest.approx(0.02, rel=0.01)
