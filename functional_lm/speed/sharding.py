"""A batch in parts, each with its own thread, or one after another to save memory.

NumPy releases the GIL while it computes. So two threads train nearly twice as fast as one, and
faster than one thread whose matrix products use two cores, because everything between the products
is divided too. In a training loop::

    train(layer, state, value_and_grad=sharded(2), ...)
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Differentiable, Scalar, Tree, expect_int
from ..gradient import ValueAndGrad, value_and_grad
from ..prng import fold_in
from .entrywise import entrywise
from .threads import one_thread, run

__all__ = ["examples", "kept_targets", "sharded"]


def examples(x: Any, side: dict[str, Any]) -> float:
    """Return the weight of a part: its number of examples."""
    return len(pytree.leaves(x)[0])


def kept_targets(x: Any, side: dict[str, Any]) -> float:
    """Return the weight of a part for a language model: its number of targets but for −100."""
    return float(np.count_nonzero(side["targets"] != -100))


def sharded(
    n_shards: int,
    *,
    accumulation_steps: int = 1,
    split: tuple[str, ...] = ("targets",),
    weight: Callable[[Any, dict[str, Any]], float] = examples,
) -> ValueAndGrad:
    """Return a `value_and_grad` that divides the batch among threads.

    For a loss that is a mean over the examples, the loss and the gradient are those of the whole
    batch, to rounding: the weighted mean of the parts. The result is the same every time for a
    given number of shards. A ``key`` (dropout) is folded with the number of the part, so that its
    draws differ from those of one shard.

    The load-balancing loss of a mixture of experts is that of each part, with the use of experts in
    this part; so it is not quite that of the whole batch.

    Meanwhile each matrix product uses one thread.

    Args:
        n_shards: the number of parts, ideally that of cores; a smaller batch has fewer. One part
            is `value_and_grad`.
        accumulation_steps: divide the batch into so many microbatches first, one after another,
            and add up their gradients. The residuals then take so many times less memory.
        split: the keywords that have the batch's leading axis, like x.
        weight: maps ``(x, side)`` of a part to its weight in the mean, such as its number of
            targets that are not ignored.

    Raises:
        ValueError: for less than one shard or microbatch; from the returned function, for inputs
            whose leading axes differ.
    """
    n_shards = expect_int("n_shards", n_shards)
    n_parts = n_shards * expect_int("accumulation_steps", accumulation_steps)

    def sharded_value_and_grad(
        layer: Differentiable, params: Tree, x: Any, **side: Any
    ) -> tuple[Scalar, Tree]:
        parts = _parts(x, side, n_parts, split)
        if len(parts) == 1:
            return value_and_grad(layer, params, x, **side)
        weights = [float(weight(*part)) for part in parts]
        shares = [one / (sum(weights) or 1.0) for one in weights]

        def task(share: float, x: Any, side: dict[str, Any]) -> Callable[[], tuple[Scalar, Tree]]:
            return lambda: value_and_grad(layer, params, x, cotangent=share, **side)

        tasks = [task(share, *part) for share, part in zip(shares, parts, strict=True)]
        losses: list[Any] = []
        total: Tree = None
        with one_thread():
            for start in range(0, len(tasks), n_shards):
                for part, grads in run(tasks[start : start + n_shards], n_shards):
                    losses.append(part)
                    total = grads if total is None else _add(total, grads)
        loss = sum((share * one for share, one in zip(shares, losses, strict=True)), start=0.0)
        return np.asarray(losses[0]).dtype.type(loss), total

    return sharded_value_and_grad


def _parts(
    x: Any, side: dict[str, Any], n_parts: int, split: tuple[str, ...]
) -> list[tuple[Any, dict[str, Any]]]:
    """Divide x and the split keywords along their leading axis, as evenly as it goes."""
    divided = {name: side[name] for name in split if name in side}
    sizes = {np.shape(leaf)[:1] for leaf in pytree.leaves((x, divided))}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            "sharding needs x and its split keywords to share a leading batch axis: "
            f"got the leading sizes {sorted(sizes)}; name other keywords with split="
        )
    ((size,),) = sizes
    n_parts = max(min(n_parts, size), 1)
    bounds = [size * i // n_parts for i in range(n_parts + 1)]
    parts = []
    for i in range(n_parts):
        start, stop = bounds[i], bounds[i + 1]
        part = pytree.map(lambda leaf, a=start, b=stop: leaf[a:b], (x, divided))
        own = {**side, **part[1]}
        if n_parts > 1 and own.get("key") is not None:
            own["key"] = fold_in(own["key"], i)
        parts.append((part[0], own))
    return parts


def _add(a: Tree, b: Tree) -> Tree:
    return entrywise(lambda a, b, out: np.add(a, b, out=out), a, b)
