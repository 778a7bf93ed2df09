"""The mean loss over a set of batches, or over a text."""

import itertools
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
    while parts := list(itertools.islice(batches, 2 * cores())):
        with one_thread():
            losses = run([partial(_loss, layer, params, x, side) for x, side in parts])
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
    count = len(x) if limit is None else max(1, min(len(x), limit // seq_len))
    chosen = np.arange(count) * len(x) // count
    plain = {"recompute": True, "auxiliary": False}
    batches = (
        (x[part].astype(np.int32), {"targets": y[part].astype(np.int32), **plain})
        for part in np.array_split(chosen, -(-count // BATCH))
    )
    for size, loss in losses_so_far(layer, params, batches):
        unload(tokens)
        yield size / (count * seq_len), loss


def _loss(layer: Differentiable, params: Tree, x: Any, side: dict[str, Any]) -> float:
    loss, _ = layer.forward(params, x, **side)
    return float(loss)
