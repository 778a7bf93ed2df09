"""A batch in parts, each with its own thread, or one after another to save memory.

NumPy releases the GIL while it computes. So two threads train nearly twice as fast as one, and
faster than one thread whose matrix products use two cores, because everything between the products
is divided too. In a training loop::

    train(layer, state, value_and_grad=sharded(2), ...)
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from .. import pytree
from ..contract import Differentiable, Scalar, Tree, expect_int
from ..gradient import ValueAndGrad, value_and_grad
from ..prng import fold_in
from .entrywise import entrywise
from .threads import one_thread, run

__all__ = ["Node", "Parts", "TreeSum", "examples", "kept_targets", "sharded"]

_Term = TypeVar("_Term")


class Node(NamedTuple):
    """A node of the tree in which `TreeSum` adds."""

    start: int  # the number of its first term
    size: int  # how many terms it has, a power of two
    total: Any


class TreeSum(Generic[_Term]):
    """Adds numbered terms in the order of a binary tree that depends on their numbers alone.

    A node has 2^k terms, the first of which has a number divisible by 2^k. So whoever adds terms
    a to b, others can add what is missing, and the bits of the sum are always the same. As many
    sums are kept at a time as the number of terms has binary digits.

    Attributes:
        nodes: the sums so far; the terms between their first and their last have all come.

    >>> letters = TreeSum(lambda a, b: f"({a}{b})")
    >>> for i, letter in enumerate("abcdefg"):
    ...     letters.add(i, letter)
    >>> letters.total()
    '(((ab)(cd))((ef)g))'
    """

    def __init__(self, add: Callable[[_Term, _Term], _Term]) -> None:
        """Begin without terms; ``add`` may write to its first argument."""
        self._add = add
        self.nodes: list[Node] = []

    def add(self, start: int, term: _Term, size: int = 1) -> None:
        """Add a term, or the sum of a node, that follows the one before."""
        while self.nodes and self.nodes[-1].size == size and self.nodes[-1].start % (2 * size) == 0:
            start, _, before = self.nodes.pop()
            term, size = self._add(before, term), 2 * size
        self.nodes.append(Node(start, size, term))

    def total(self) -> _Term:
        """Return the sum of all terms."""
        terms = [node.total for node in self.nodes]
        return functools.reduce(lambda later, term: self._add(term, later), reversed(terms))


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
    microbatches: int | None = None,
    split: tuple[str, ...] = ("targets",),
    weight: Callable[[Any, dict[str, Any]], float] = examples,
) -> ValueAndGrad:
    """Return a `value_and_grad` that divides the batch among threads.

    For a loss that is a mean over the examples, the loss and the gradient are those of the whole
    batch, to rounding: the weighted mean of the parts. The result is the same every time for a
    given number of parts, which are added as a `TreeSum`. A ``key`` (dropout) is folded with the
    number of the part, so that its draws differ from those of one shard.

    The load-balancing loss of a mixture of experts is that of each part, with the use of experts in
    this part; so it is not quite that of the whole batch.

    Meanwhile each matrix product uses one thread.

    Args:
        n_shards: the number of parts, ideally that of cores; a smaller batch has fewer. One part
            is `value_and_grad`.
        accumulation_steps: divide the batch into so many microbatches first, one after another,
            and add up their gradients. The residuals then take so many times less memory.
        microbatches: divide the batch into so many parts instead, as many at a time as there are
            shards; then the result does not depend on that.
        split: the keywords that have the batch's leading axis, like x.
        weight: maps ``(x, side)`` of a part to its weight in the mean, such as its number of
            targets that are not ignored.

    Raises:
        ValueError: for less than one shard or microbatch; from the returned function, for inputs
            whose leading axes differ.
    """
    n_shards = expect_int("n_shards", n_shards)
    n_parts = n_shards * expect_int("accumulation_steps", accumulation_steps)
    if microbatches is not None:
        n_parts = expect_int("microbatches", microbatches)

    def sharded_value_and_grad(
        layer: Differentiable, params: Tree, x: Any, **side: Any
    ) -> tuple[Scalar, Tree]:
        parts = Parts(x, side, n_parts, split, weight)
        if len(parts.inputs) == 1:
            return value_and_grad(layer, params, x, **side)
        losses, total = [], TreeSum(_add)
        with one_thread():
            everything = range(len(parts.inputs))
            for i, loss, grads in parts.computed(
                value_and_grad, layer, params, everything, n_shards
            ):
                losses.append(loss)
                total.add(i, grads)
        return parts.loss(losses), total.total()

    return sharded_value_and_grad


class Parts:
    """A batch in parts.

    Attributes:
        inputs: ``(x, side)`` of each part.
        shares: of each part in the loss; they add up to one.
    """

    def __init__(
        self,
        x: Any,
        side: dict[str, Any],
        n_parts: int,
        split: tuple[str, ...],
        weight: Callable[[Any, dict[str, Any]], float],
    ) -> None:
        """Divide a batch; see `sharded` for the arguments."""
        self.inputs = _parts(x, side, n_parts, split)
        weights = [float(weight(*part)) for part in self.inputs]
        self.shares = [one / (sum(weights) or 1.0) for one in weights]

    def computed(
        self, gradient: Any, layer: Differentiable, params: Tree, which: range, n_threads: int
    ) -> Iterator[tuple[int, Scalar, Tree]]:
        """Yield the number, the loss and the gradient of some parts, its share of the whole one.

        Args:
            gradient: `value_and_grad`, or what takes its place.
            layer: the loss.
            params: its parameters.
            which: numbers of parts that follow each other.
            n_threads: the most that are computed at once.
        """

        def task(i: int) -> Callable[[], tuple[Scalar, Tree]]:
            x, side = self.inputs[i]
            return lambda: gradient(layer, params, x, cotangent=self.shares[i], **side)

        for start in range(which.start, which.stop, n_threads):
            numbers = range(start, min(start + n_threads, which.stop))
            for i, (loss, grads) in zip(
                numbers, run([*map(task, numbers)], n_threads), strict=True
            ):
                yield i, loss, grads

    def loss(self, losses: list[Any]) -> Scalar:
        """Return the loss of the batch from those of its parts."""
        pairs = zip(self.shares, losses, strict=True)
        total = sum((share * one for share, one in pairs), start=0.0)
        return np.asarray(losses[0]).dtype.type(total)


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
