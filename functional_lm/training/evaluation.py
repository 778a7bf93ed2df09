"""The mean loss over a set of batches, or over a text."""

import itertools
import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..contract import Array, Differentiable, Tree
from ..speed.runtime import cores
from ..speed.threads import one_thread, run
from ..text import windows
from ..text.batches import unload

BATCH = 64
"""Windows of a text that are evaluated at once, in each thread."""


def evaluate(
    layer: Differentiable, params: Tree, batches: Iterable[tuple[Any, dict[str, Any]]]
) -> float:
    """Return the mean loss over batches ``(x, side)``, weighted by the size of x.

    Batches run side by side, in as many threads as there are cores.

    Raises:
        ValueError: if there is no batch.
    """
    losses = [loss for _, loss in losses_so_far(layer, params, batches)]
    if not losses:
        raise ValueError("evaluate needs at least one batch: got none; pass a longer text")
    return losses[-1]


def losses_so_far(
    layer: Differentiable, params: Tree, batches: Iterable[tuple[Any, dict[str, Any]]]
) -> Iterator[tuple[int, float]]:
    """Yield how many entries of x were evaluated, and their mean loss, every few batches."""
    batches, total, size = iter(batches), 0.0, 0
    n_threads = cores(others_wait=True)  # one process of several validates
    while parts := list(itertools.islice(batches, 2 * n_threads)):
        with one_thread():
            losses = run([partial(_loss, layer, params, x, side) for x, side in parts], n_threads)
        for loss, (x, _) in zip(losses, parts, strict=True):
            total += loss * x.size
            size += x.size
        if size:
            yield size, total / size


def text_losses(
    layer: Differentiable, params: Tree, tokens: Array, seq_len: int, *, limit: int | None = None
) -> Iterator[tuple[float, float]]:
    """Yield the share of the work that is done and the mean loss so far, in nats per token.

    That is the cross-entropy alone: auxiliary losses, label smoothing and z-loss are for training.

    The last loss is that of all windows of the text that do not overlap, or of a fixed sample of
    them, evenly spaced.

    Args:
        layer: a language model.
        params: its parameters.
        tokens: (N,), at least seq_len + 1.
        seq_len: T.
        limit: the most tokens to evaluate, rounded down to whole windows but at least one. None:
            all.

    Raises:
        ValueError: if the tokens are fewer than seq_len + 1.
    """
    x, y = windows(tokens, seq_len=seq_len)
    parts = _chosen(len(x), seq_len, limit)
    plain = {"recompute": True, "auxiliary": False}
    batches = (
        (x[part].astype(np.int32), {"targets": y[part].astype(np.int32), **plain}) for part in parts
    )
    for size, loss in losses_so_far(layer, params, batches):
        unload(tokens)
        yield size / (sum(map(len, parts)) * seq_len), loss


def bits_per_byte(
    loss: float,
    tokens: Array,
    seq_len: int,
    *,
    token_bytes: Array | None,
    sizes: Array | None = None,
    limit: int | None = None,
) -> float | None:
    """Return a loss of `text_losses` in bits per byte of UTF-8, which tokenizers have in common.

    The bytes are those that the targets of the same windows stand for.

    Args:
        loss: in nats per token.
        tokens: (N,), as for the loss.
        seq_len: T, as for the loss.
        token_bytes: (V,) the bytes of each token of the vocabulary, or None.
        sizes: (N,) in place of that, the bytes of each token of the text.
        limit: as for the loss.

    Returns:
        The figure, or None without token_bytes and sizes, or for no bytes.
    """
    source = sizes if token_bytes is None else tokens
    if source is None:
        return None
    _, y = windows(source, seq_len=seq_len)
    targets, bytes_ = 0, 0
    for part in _chosen(len(y), seq_len, limit):
        scored = y[part] if token_bytes is None else token_bytes[y[part]]
        targets += scored.size
        bytes_ += int(scored.sum(dtype=np.int64))
        unload(tokens)
    return loss / math.log(2) * targets / bytes_ if bytes_ else None


def _chosen(count: int, seq_len: int, limit: int | None) -> list[Array]:
    """Return which of so many windows are evaluated, in batches."""
    n = count if limit is None else max(1, min(count, limit // seq_len))
    return np.array_split(np.arange(n) * count // n, -(-n // BATCH))


def _loss(layer: Differentiable, params: Tree, x: Any, side: dict[str, Any]) -> float:
    loss, _ = layer.forward(params, x, **side)
    return float(loss)
