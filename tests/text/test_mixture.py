import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_lm.text import Mixture, batch_at, mixed_batch_at, shuffled_batch_at

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5)


@settings(deadline=None)  # a busy machine is no fault
@given(WEIGHTS, st.integers(0, 10**6))
def test_counts_follow_the_weights_and_only_grow(weights, n):
    mixture = Mixture((), tuple(weights))
    counts, after = mixture.counts(n), mixture.counts(n + 1)
    assert sum(counts) == n
    new = [b - a for a, b in zip(counts, after, strict=True)]
    assert sorted(new) == [0] * (len(weights) - 1) + [1]
    due = n * np.array(weights) / sum(weights)
    assert np.abs(counts - due).max() <= len(weights) / 2 + 1e-9 * n


@pytest.mark.parametrize("draw", [batch_at, shuffled_batch_at])
def test_a_batch_has_windows_of_each_text(draw):
    mixture = Mixture((np.arange(500, dtype=np.uint16), np.arange(1000, 1100)), (3.0, 1.0))
    size = {"batch_size": 6, "seq_len": 8}
    batches = [mixed_batch_at(draw, mixture, (7,), step, **size) for step in range(10)]
    x = np.concatenate([inputs for inputs, _ in batches])
    assert x.shape == (60, 8)
    assert (x[:, 0] >= 1000).sum() == 15
    for inputs, targets in batches:
        np.testing.assert_array_equal(targets, inputs + 1)
    # A batch depends on the key and the step alone, as a resumed run needs it.
    again, _ = mixed_batch_at(draw, mixture, (7,), 4, **size)
    np.testing.assert_array_equal(again, batches[4][0])
    other, _ = mixed_batch_at(draw, mixture, (8,), 4, **size)
    assert (other != again).any()


def test_passes_over_each_text_show_all_of_it():
    mixture = Mixture((np.arange(81), np.arange(1000, 1041)), (2.0, 1.0))
    draws = (
        mixed_batch_at(shuffled_batch_at, mixture, (0,), step, batch_size=3, seq_len=8)
        for step in range(4)
    )
    x = np.concatenate([inputs for inputs, _ in draws])
    small = x[x[:, 0] >= 1000]
    assert len(small) == 4  # one pass: windows that do not overlap
    assert len(np.unique(small)) == 32
