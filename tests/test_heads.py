import numpy as np
import pytest

from functional_lm import heads
from functional_lm.heads import causal_mask, visible
from functional_lm.layers import attention


@pytest.mark.parametrize("T", [0, 1, 5])
def test_causal_mask(T):
    np.testing.assert_array_equal(causal_mask(T), np.tril(np.ones((T, T), bool)))
    np.testing.assert_array_equal(causal_mask(T, 9, query_offset=2), np.tri(T, 9, 2, bool))


def test_who_sees_whom():
    mask = np.array([[True, False, True]])
    assert visible(2, 3, False, 0, None) is None
    assert visible(2, 3, False, 0, mask) is mask
    np.testing.assert_array_equal(visible(2, 3, True, 1, None), np.tri(2, 3, 1, bool))
    np.testing.assert_array_equal(visible(2, 3, True, 1, mask), [[1, 0, 0], [1, 0, 1]])


def test_attention_takes_the_shared_type():
    assert attention.QKV is heads.QKV
