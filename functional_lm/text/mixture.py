"""Several texts in one stream of batches, each with a share by its weight."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..contract import Array, Key

__all__ = ["Mixture", "mixed_batch_at"]


class Mixture(NamedTuple):
    """Texts and their weights.

    Attributes:
        texts: the tokens of each, (N,).
        weights: how often windows of each are drawn, relative to the others.
    """

    texts: tuple[Array, ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        """The number of tokens."""
        return sum(map(len, self.texts))

    def counts(self, n_windows: int) -> list[int]:
        """Return how many of the first windows of the stream are of each text.

        Of n windows the first text gets the share w₀/Σw, rounded, and the others divide the rest
        in the same way. So each count stays near its share, and only grows with n.

        >>> Mixture((), (2.0, 1.0, 1.0)).counts(10)
        [5, 3, 2]
        """
        counts, total = [], sum(self.weights)
        for weight in self.weights[:-1]:
            counts.append(min(math.floor(n_windows * (weight / total) + 0.5), n_windows))
            n_windows -= counts[-1]
            total -= weight
        return [*counts, n_windows]


def mixed_batch_at(
    draw: Callable[..., tuple[Array, Array]],
    mixture: Mixture,
    key: Key,
    step: int,
    *,
    batch_size: int,
    seq_len: int,
) -> tuple[Array, Array]:
    """Return a batch of a mixture: windows of each text, as many as are due.

    A pure function: the same key and step always give the same batch.

    Args:
        draw: `batch_at` or another function like it, which draws each text's own windows.
        mixture: of at least one text.
        key: randomness.
        step: which batch.
        batch_size: B.
        seq_len: T.

    Returns:
        Inputs and targets, both (B, T).

    Raises:
        ValueError: if a text has fewer than seq_len + 1 tokens.
    """
    before, after = (mixture.counts(n * batch_size) for n in (step, step + 1))
    windows = [
        draw(text, (*key, i), number, batch_size=1, seq_len=seq_len)
        for i, text in enumerate(mixture.texts)
        for number in range(before[i], after[i])
    ]
    inputs, targets = zip(*windows, strict=True)
    return np.concatenate(inputs), np.concatenate(targets)
