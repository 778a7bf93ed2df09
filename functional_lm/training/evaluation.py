"""The mean loss over a set of batches."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from ..contract import Differentiable, Tree
from ..speed.threads import one_thread, run


def evaluate(
    layer: Differentiable, params: Tree, batches: Iterable[tuple[Any, dict[str, Any]]]
) -> float:
    """Return the mean loss over batches ``(x, side)``, weighted by the size of x.

    Batches run side by side, in as many threads as there are cores.

    Raises:
        ValueError: if there is no batch.
    """
    parts = list(batches)
    with one_thread():
        losses = run([partial(_loss, layer, params, x, side) for x, side in parts])
    total = sum(loss * x.size for loss, (x, _) in zip(losses, parts, strict=True))
    size = sum(x.size for x, _ in parts)
    if size == 0:
        raise ValueError("evaluate needs at least one batch: got none; pass a longer text")
    return total / size


def _loss(layer: Differentiable, params: Tree, x: Any, side: dict[str, Any]) -> float:
    loss, _ = layer.forward(params, x, **side)
    return float(loss)
