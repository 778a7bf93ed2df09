"""The part of a long text that a model sees."""

from ..contract import expect_int

__all__ = ["window_start"]


def window_start(n_tokens: int, max_seq_len: int) -> int:
    """Return the index of the first of ``n_tokens`` tokens that the model sees.

    It sees all of them while they fit into ``max_seq_len``. When they no longer fit, the window
    drops its older half: its start moves by ``max_seq_len // 2`` tokens, at least one. The cache
    of keys and values, whose positions count from the start of the window, is refilled only then.

    >>> [(n, window_start(n, 6)) for n in (1, 6, 7, 9, 10, 12, 13)]
    [(1, 0), (6, 0), (7, 3), (9, 3), (10, 6), (12, 6), (13, 9)]

    Raises:
        ValueError: for a negative number of tokens, or a ``max_seq_len`` below 1.
    """
    n_tokens = expect_int("n_tokens", n_tokens, minimum=0)
    max_seq_len = expect_int("max_seq_len", max_seq_len)
    hop = max(max_seq_len // 2, 1)
    return max(-(-(n_tokens - max_seq_len) // hop) * hop, 0)
