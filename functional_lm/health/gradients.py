"""Gradients that vanish or explode on their way through the layers.

The blocks of a model, numbered parts such as ``blocks.3``, are compared by the norm of all their
gradients. In a transformer with pre-norm they differ little (Xiong et al. 2020); in a chain without
skip paths they form a geometric series (Glorot and Bengio 2010; Pascanu et al. 2013).
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from ..runs.records import block_of
from .history import History, Sign, check

FACTOR = 100.0
"""Between the first block and the last. Blocks of healthy runs differ by a factor of 2 to 10."""

SMALLEST = 1e-5
"""The norm of a whole gradient: of 0.8 million weights each entry is then at Adam's ε = 1e-8, below
which a step is lost. Healthy runs have 0.3 to 3."""

LARGEST = 10.0
"""The median norm of a whole gradient. Clipping at 1 leaves less than a tenth of it; half of the
usual norm, and more, is known to be harmless (Pascanu et al. 2013, section 3.2)."""


@check(
    "vanishing gradients",
    needs="statistics",
    remedy="add skip paths and norms, or draw larger weights, so that activations and gradients "
    "keep their size from layer to layer",
    explains=("plateau",),
)
def vanishing_gradients(history: History) -> Iterator[Sign]:
    """The first blocks get a far smaller gradient than the last, or the model hardly any."""
    yield from _by_block(history, lambda first, last: 0 < first * FACTOR < last)
    small = np.flatnonzero((history.grad_norm < SMALLEST) & (history.loss > 0.1 * history.loss[0]))
    if small.size:
        first, last = history.steps[small[[0, -1]]]
        smallest = history.grad_norm[small[0]]
        yield Sign(first, last, f"at step {first} the norm of the whole gradient is {smallest:.2g}")


@check(
    "exploding gradients",
    needs="statistics",
    remedy="clip the gradient, draw smaller weights, and add skip paths and norms, so that "
    "gradients keep their size from layer to layer",
    explains=("divergence", "plateau"),
)
def exploding_gradients(history: History) -> Iterator[Sign]:
    """The first blocks get a far larger gradient than the last, or the whole is far too long."""
    yield from _by_block(history, lambda first, last: first > FACTOR * last > 0)
    known = history.grad_norm[np.isfinite(history.grad_norm)]
    if len(known) and np.median(known) > LARGEST:
        yield Sign(
            history.steps[0],
            history.steps[-1],
            f"the norm of the whole gradient has a median of {np.median(known):.3g} and a maximum "
            f"of {known.max():.3g}",
        )


def block_norms(figures: dict[str, float]) -> list[float]:
    """Return the gradient norm of each block of the longest stack, [] without a stack.

    >>> block_norms({"blocks.0.w": 3.0, "blocks.0.v": 4.0, "blocks.1.w": 2.0, "norm.scale": 1.0})
    [5.0, 2.0]
    """
    stacks: dict[str, dict[int, float]] = {}
    for leaf, figure in figures.items():
        stack, _, number = block_of(leaf).rpartition(".")
        if number.isdecimal():
            norms = stacks.setdefault(stack, {})
            norms[int(number)] = math.hypot(norms.get(int(number), 0.0), figure)
    longest = max(stacks.values(), key=len, default={})
    return [longest[i] for i in sorted(longest)] if len(longest) > 1 else []


def _by_block(history: History, matches: Callable[[float, float], bool]) -> Iterator[Sign]:
    """Yield a sign if the first and the last block match in at least half of the statistics."""
    norms = [(step, block_norms(of.get("grad_norm", {}))) for step, of in history.statistics]
    pairs = [(step, of[0], of[-1]) for step, of in norms if of]
    matching = [(step, first, last) for step, first, last in pairs if matches(first, last)]
    if matching and 2 * len(matching) >= len(pairs):
        step, first, last = matching[-1]
        yield Sign(
            matching[0][0],
            step,
            f"at step {step} the gradient of the first block has a norm of {first:.2g}, that of "
            f"the last {last:.2g}",
        )
