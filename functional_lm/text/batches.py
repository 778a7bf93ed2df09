"""Windows of a token sequence: random or evenly spread ones, shuffled epochs, or all in order."""

import functools

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


GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio, odd


def even_batch_at(
    tokens: Array, key: Key, step: int, *, batch_size: int, seq_len: int
) -> tuple[Array, Array]:
    """Return windows that come from all parts of the text equally often.

    A pure function like `batch_at`, with the same arguments. Where random windows leave gaps and
    repeat themselves, window i begins at the fraction frac(i/φ + u) of the text, φ being the golden
    ratio and u the key's: each falls into the widest gap between those so far, and at any time the
    gaps have at most three widths (Sós 1958).

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    expect_window(tokens, seq_len)
    first = integers(key, (1,), low=0, high=2**63).astype(np.uint64)
    number = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
    fractions = (first * np.uint64(2) + number * GOLDEN) >> np.uint64(11)  # of 2⁵³; sums wrap
    starts = np.floor(fractions * (2.0**-53 * (len(tokens) - seq_len))).astype(np.int64)
    return _windows_at(tokens, starts, seq_len)


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
    order = _shuffled((*key, epoch), count)
    chosen = order[batch * batch_size : (batch + 1) * batch_size]
    return _windows_at(tokens, chosen * seq_len, seq_len)


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
    return window[:, :-1], window[:, 1:]


@functools.lru_cache(maxsize=2)
def _shuffled(key: Key, count: int) -> Array:
    order = permutation(key, count)
    order.flags.writeable = False
    return order
