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


@pytest.mark.parametrize("n_heads", [1, 2, 3, 5, 8, 12])
def test_slopes_fall_geometrically_between_those_of_powers_of_two(n_heads):
    slopes = heads.alibi_slopes(n_heads)
    assert len(set(slopes)) == n_heads
    n = 2 ** int(np.log2(n_heads))
    np.testing.assert_allclose(np.log2(slopes[:n]), -8 * np.arange(1, n + 1) / n, rtol=1e-15)
    between = np.log2(slopes[n:]) * n / -8  # halfway between two heads
    np.testing.assert_allclose(between, np.arange(n_heads - n) + 0.5, rtol=1e-15)


def test_offsets_are_those_of_the_examples():
    offset = np.array([2, 0])
    seen = visible(3, 4, Visibility(True, offset))
    for example, own in zip(seen, offset, strict=True):
        np.testing.assert_array_equal(example[0], visible(3, 4, Visibility(True, int(own))))
    with pytest.raises(ValueError, match=r"integers \(B,\) = \(3,\): got int64 \(2,\)"):
        heads.expect_visibility(Visibility(True, offset), (3, 2, 3, 4))
    with pytest.raises(ValueError, match="offset needs causal attention"):
        heads.expect_visibility(Visibility(False, offset), (2, 2, 3, 4))


def test_first_keys_hide_those_before():
    first = np.array([[0, 1, 1], [2, 2, 9]])
    seen = visible(3, 4, Visibility(True, 1, first=first))
    np.testing.assert_array_equal(seen[0, 0], [[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]])
    np.testing.assert_array_equal(seen[1, 0], [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    fronted = visible(3, 6, heads.behind_prefix(Visibility(True, 1, first=first), 2, 3, 4))
    np.testing.assert_array_equal(fronted[..., 2:], seen)
    assert fronted[..., :2].all()
    with pytest.raises(ValueError, match="first needs causal attention"):
        heads.expect_visibility(Visibility(first=first), (2, 2, 3, 4))
    for bad in (first[0], first / 2, [[0]]):
        with pytest.raises(ValueError, match=r"first must be integers \(B, T\) = \(2, 3\): got"):
            heads.expect_visibility(Visibility(True, first=bad), (2, 2, 3, 4))
