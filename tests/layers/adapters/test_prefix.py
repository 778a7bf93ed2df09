import numpy as np
import pytest

from functional_lm.heads import QKV
from functional_lm.layers import prefix
from functional_lm.testing import certify

test_certified = certify("prefix")


def test_values_of_another_size_are_refused():
    params = prefix.init((0,), size=3, n_kv_heads=2, key_size=5, value_size=5)
    x = QKV(*(np.ones((2, 3, 2, size), np.float32) for size in (5, 5, 4)))
    with pytest.raises(ValueError, match="values must have shape"):
        prefix.forward(params, x)
