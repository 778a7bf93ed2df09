"""Windows of a token sequence: random ones, shuffled passes or epochs, or all in order."""

import functools
import mmap

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..contract import Array, Key, expect_int
from ..prng import integers, permutation


def split(tokens: Array, fraction: float = 0.9) -> tuple[Array, Array]:
    """Return the first ``fraction`` of the tokens to train on, and the rest to validate."""
    border = int(len(tokens) * fraction)
    return tokens[:border], tokens[border:]


def batch_at(
    tokens: Array, key: Key, step: int, *, batch_size: int, seq_len: int
) -> tuple[Array, Array]:
    """Return random windows and the tokens that follow each of theirs.

    A pure function: the same key and step always give the same batch.

    Args:
        tokens: (N,) ids.
        key: randomness.
        step: which batch.
        batch_size: B.
        seq_len: T.

    Returns:
        Inputs and targets, both (B, T); the targets are the inputs one token later.

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    expect_window(tokens, seq_len)
    starts = integers((*key, step), (batch_size,), low=0, high=len(tokens) - seq_len)
    return _windows_at(tokens, starts, seq_len)


def shuffled_batch_at(
    tokens: Array, key: Key, step: int, *, batch_size: int, seq_len: int
) -> tuple[Array, Array]:
    """Return a batch of a pass over the text: windows that do not overlap, each once, shuffled.

    A pure function like `batch_at`, with the same arguments. Passes follow each other without a
    break. Each has an order of its own and is shifted at random, so that windows begin at every
    token in time. Random windows leave out some of the text and repeat other parts; passes show
    all of it equally often.

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    expect_window(tokens, seq_len)
    count = max((len(tokens) - 1) // seq_len - 1, 1)  # one less than fits leaves room to shift
    room = len(tokens) - count * seq_len
    numbers = range(step * batch_size, (step + 1) * batch_size)
    places = [divmod(number, count) for number in numbers]
    starts = [_shuffled((*key, number), count, seq_len, room)[i] for number, i in places]
    return _windows_at(tokens, np.array(starts), seq_len)


def epoch_batch_at(
    tokens: Array, key: Key, step: int, *, batch_size: int, seq_len: int
) -> tuple[Array, Array]:
    """Return a batch of an epoch: every window that does not overlap comes once, in random order.

    A pure function like `batch_at`, with the same arguments; each epoch has its own order, and its
    last batch may be smaller.

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    expect_window(tokens, seq_len)
    count = (len(tokens) - 1) // seq_len
    epoch, batch = divmod(step, -(-count // batch_size))
    starts = _shuffled((*key, epoch), count, seq_len)
    return _windows_at(tokens, starts[batch * batch_size : (batch + 1) * batch_size], seq_len)


def steps_per_epoch(n_tokens: int, *, batch_size: int, seq_len: int) -> int:
    """Return the number of batches in an epoch of `epoch_batch_at`."""
    return -(-((n_tokens - 1) // seq_len) // batch_size)


def windows(tokens: Array, *, seq_len: int) -> tuple[Array, Array]:
    """Return all windows that do not overlap, in order, as inputs and targets (N, T).

    They are views of the tokens and take no memory.

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    expect_window(tokens, seq_len)
    window = sliding_window_view(tokens, seq_len + 1)[::seq_len]
    return window[:, :-1], window[:, 1:]


def unload(tokens: Array) -> None:
    """Let the memory that a mapped file has taken go; an array in memory stays as it is.

    What is read again comes from the system's cache of the file, which shrinks if need be.
    """
    mapped = getattr(tokens, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def expect_window(tokens: Array, seq_len: int, name: str = "the text") -> None:
    """Require at least one window and the token after it.

    Raises:
        ValueError: with both lengths.
    """
    expect_int("seq_len", seq_len)
    if len(tokens) < seq_len + 1:
        raise ValueError(
            f"{name} must have at least seq_len + 1 = {seq_len + 1} tokens: got {len(tokens)}; "
            "pass a longer text or a shorter seq_len"
        )


def _windows_at(tokens: Array, starts: Array, seq_len: int) -> tuple[Array, Array]:
    window = tokens[starts[:, None] + np.arange(seq_len + 1)]  # (B, T + 1)
    window = window.astype(np.int32)
    unload(tokens)
    return window[:, :-1], window[:, 1:]


@functools.lru_cache(maxsize=2)
def _shuffled(key: Key, count: int, seq_len: int, room: int = 1) -> Array:
    """Return where windows side by side begin, in random order, all shifted by less than room."""
    shift = integers((*key, 0), (1,), low=0, high=room)
    starts = permutation(key, count) * seq_len + shift
    starts.flags.writeable = False
    return starts
