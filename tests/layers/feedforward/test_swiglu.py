import numpy as np
import pytest

from functional_lm.layers import swiglu
from functional_lm.testing import certify

test_certified = certify("swiglu")


def test_rows_of_odd_size_are_refused():
    with pytest.raises(ValueError, match="even size, gate and value: got 3"):
        swiglu.forward({}, np.ones((2, 3), np.float32))
