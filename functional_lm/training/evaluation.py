"""The mean loss over a set of batches."""

from collections.abc import Iterable
from typing import Any

from ..contract import Differentiable, Tree


def evaluate(
    layer: Differentiable, params: Tree, batches: Iterable[tuple[Any, dict[str, Any]]]
) -> float:
    """Return the mean loss over batches ``(x, side)``, weighted by the size of x.

    Raises:
        ValueError: if there is no batch.
    """
    total, size = 0.0, 0
    for x, side in batches:
        loss, _ = layer.forward(params, x, **side)
        total += float(loss) * x.size
        size += x.size
    if size == 0:
        raise ValueError("evaluate needs at least one batch: got none; pass a longer text")
    return total / size
