import numpy as np
import pytest

from functional_lm import heads
from functional_lm.heads import Visibility, visible
from functional_lm.layers import attention


@pytest.mark.parametrize("T", [0, 1, 5])
def test_a_causal_query_sees_up_to_its_own_position(T):
    np.testing.assert_array_equal(visible(T, T, Visibility(True)), np.tri(T, T, 0, bool))
    np.testing.assert_array_equal(visible(T, 9, Visibility(True, 2)), np.tri(T, 9, 2, bool))


def test_who_sees_whom():
    mask = np.array([[True, False, True]])
    assert visible(2, 3, Visibility()) is None
    assert visible(2, 3, Visibility(mask=mask)) is mask
    np.testing.assert_array_equal(visible(2, 3, Visibility(True, 1)), np.tri(2, 3, 1, bool))
    seen = visible(2, 3, Visibility(True, 1, mask=mask))
    np.testing.assert_array_equal(seen, [[1, 0, 0], [1, 0, 1]])
    seen = visible(3, 4, Visibility(True, 1, window=2))
    np.testing.assert_array_equal(seen, [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])


def test_attention_takes_the_shared_types():
    assert attention.QKV is heads.QKV
    assert attention.Visibility is heads.Visibility
