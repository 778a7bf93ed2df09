import numpy as np
import pytest

from functional_lm.text import (
    batch_at,
    epoch_batch_at,
    shuffled_batch_at,
    split,
    steps_per_epoch,
    windows,
)

TOKENS = np.arange(100, dtype=np.int32)


@pytest.mark.parametrize("batch_at", [batch_at, shuffled_batch_at])
def test_a_batch_is_a_pure_function_of_key_and_step(batch_at):
    x, y = batch_at(TOKENS, (0,), 3, batch_size=5, seq_len=7)
    again, _ = batch_at(TOKENS, (0,), 3, batch_size=5, seq_len=7)
    np.testing.assert_array_equal(x, again)
    assert x.shape == y.shape == (5, 7)
    np.testing.assert_array_equal(y, x + 1)
    for other in (
        batch_at(TOKENS, (0,), 4, batch_size=5, seq_len=7),
        batch_at(TOKENS, (1,), 3, batch_size=5, seq_len=7),
    ):
        assert (other[0] != x).any()


@pytest.mark.parametrize("batch_at", [batch_at, shuffled_batch_at])
def test_every_window_can_be_drawn(batch_at):
    x, y = batch_at(TOKENS[:10], (0,), 0, batch_size=200, seq_len=7)
    assert set(x[:, 0]) == {0, 1, 2}
    assert y.max() == 9


@pytest.mark.parametrize(("length", "count"), [(100, 13), (99, 13), (98, 12), (8, 1), (14, 1)])
def test_a_pass_shows_windows_side_by_side_and_shifted_once_each(length, count):
    batches = [
        shuffled_batch_at(TOKENS[:length], (3,), i, batch_size=count, seq_len=7)[0] for i in (0, 1)
    ]
    starts = [x[:, 0] for x in batches]
    for one in starts:
        np.testing.assert_array_equal(np.diff(np.sort(one)), 7)
    if count > 1:
        assert (starts[0] != starts[1]).any()
    parts = [
        shuffled_batch_at(TOKENS[:length], (3,), i, batch_size=count * 2, seq_len=7)[0]
        for i in (0, 1)
    ]
    np.testing.assert_array_equal(np.concatenate(parts)[: 2 * count, 0], np.concatenate(starts))


def test_windows_cover_the_tokens_once():
    x, y = windows(TOKENS, seq_len=7)
    np.testing.assert_array_equal(x.ravel(), np.arange(98))
    np.testing.assert_array_equal(y, x + 1)
    x, _ = windows(TOKENS[:99], seq_len=7)
    assert len(x) == 14
    x, _ = windows(TOKENS[:98], seq_len=7)
    assert len(x) == 13


def test_an_epoch_shows_every_window_once():
    settings = {"batch_size": 4, "seq_len": 7}
    steps = steps_per_epoch(len(TOKENS), **settings)
    assert steps == 4
    epochs = []
    for epoch in range(2):
        batches = [epoch_batch_at(TOKENS, (0,), 4 * epoch + i, **settings) for i in range(steps)]
        assert [len(x) for x, _ in batches] == [4, 4, 4, 2]
        assert all((y == x + 1).all() for x, y in batches)
        epochs.append(np.concatenate([x[:, 0] for x, _ in batches]))
        np.testing.assert_array_equal(np.sort(epochs[-1]), np.arange(14) * 7)
    assert (epochs[0] != epochs[1]).any()
    again, _ = epoch_batch_at(TOKENS, (0,), 5, **settings)
    np.testing.assert_array_equal(again[:, 0], epochs[1][4:8])


def test_split():
    train, held_out = split(TOKENS)
    assert (len(train), len(held_out)) == (90, 10)
    assert held_out[0] == 90


@pytest.mark.parametrize("length", [0, 7])
def test_a_text_shorter_than_a_window_is_refused(length):
    with pytest.raises(ValueError, match=f"at least seq_len \\+ 1 = 8 tokens: got {length}"):
        windows(TOKENS[:length], seq_len=7)
    with pytest.raises(ValueError, match="at least seq_len"):
        batch_at(TOKENS[:length], (0,), 0, batch_size=2, seq_len=7)
    with pytest.raises(ValueError, match="at least seq_len"):
        epoch_batch_at(TOKENS[:length], (0,), 0, batch_size=2, seq_len=7)
    assert windows(TOKENS[:8], seq_len=7)[0].shape == (1, 7)
