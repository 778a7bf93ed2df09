"""Windows of a token sequence: random ones to train on, all of them to evaluate."""

import numpy as np

from ..contract import Array, Key, expect_int
from ..prng import integers


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
    window = tokens[starts[:, None] + np.arange(seq_len + 1)]  # (B, T + 1)
    return window[:, :-1], window[:, 1:]


def windows(tokens: Array, *, seq_len: int) -> tuple[Array, Array]:
    """Return all windows that do not overlap, as inputs and targets (N, T).

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    expect_window(tokens, seq_len)
    count = (len(tokens) - 1) // seq_len
    end = count * seq_len
    return tokens[:end].reshape(count, seq_len), tokens[1 : end + 1].reshape(count, seq_len)


def expect_window(tokens: Array, seq_len: int) -> None:
    """Require at least one window and the token after it.

    Raises:
        ValueError: with both lengths.
    """
    expect_int("seq_len", seq_len)
    if len(tokens) < seq_len + 1:
        raise ValueError(
            f"the text must have at least seq_len + 1 = {seq_len + 1} tokens: got {len(tokens)}; "
            "pass a longer text or a shorter seq_len"
        )
