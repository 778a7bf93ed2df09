"""Gradients that vanish or explode on their way through the layers.

The blocks of a model, numbered parts such as ``blocks.3``, are compared by the norm of all their
gradients. In a transformer with pre-norm they differ little (Xiong et al. 2020); in a chain without
skip paths they form a geometric series (Glorot and Bengio 2010; Pascanu et al. 2013).
"""

import math
from collections.abc import Callable

import numpy as np

from ..runs.records import block_of
from .history import Finding, History

FACTOR = 100.0
"""Between the first block and the last. Blocks of healthy runs differ by a factor of 2 to 10."""

SMALLEST = 1e-5
"""The norm of a whole gradient: of 0.8 million weights each entry is then at Adam's ε = 1e-8, below
which a step is lost. Healthy runs have 0.3 to 3."""

LARGEST = 10.0
"""The median norm of a whole gradient. Clipping at 1 leaves less than a tenth of it; half of the
usual norm, and more, is known to be harmless (Pascanu et al. 2013, section 3.2)."""


def vanishing_gradients(history: History) -> Finding | None:
    """The first blocks get a far smaller gradient than the last, or the model hardly any."""
    shown, evidence = _by_block(history, lambda first, last: 0 < first * FACTOR < last)
    small = (history.grad_norm < SMALLEST) & (history.loss > 0.1 * history.loss[0])
    if small.any():
        steps = history.steps[small].tolist()
        shown += steps
        smallest = history.grad_norm[small][0]
        evidence.append(f"at step {steps[0]} the norm of the whole gradient is {smallest:.2g}")
    return _finding(
        "vanishing gradients",
        shown,
        evidence,
        "add skip paths and norms, or draw larger weights, so that activations and gradients keep "
        "their size from layer to layer",
    )


def exploding_gradients(history: History) -> Finding | None:
    """The first blocks get a far larger gradient than the last, or the whole is far too long."""
    shown, evidence = _by_block(history, lambda first, last: first > FACTOR * last > 0)
    known = history.grad_norm[np.isfinite(history.grad_norm)]
    if len(known) and np.median(known) > LARGEST:
        shown += [int(history.steps[0]), int(history.steps[-1])]
        evidence.append(
            f"the norm of the whole gradient has a median of {np.median(known):.3g} and a maximum "
            f"of {known.max():.3g}"
        )
    return _finding(
        "exploding gradients",
        shown,
        evidence,
        "clip the gradient, draw smaller weights, and add skip paths and norms, so that gradients "
        "keep their size from layer to layer",
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


def _by_block(
    history: History, matches: Callable[[float, float], bool]
) -> tuple[list[int], list[str]]:
    """Return the steps at which first and last block match, and the evidence.

    Both are empty unless at least half of the statistics match.
    """
    norms = [(step, block_norms(of.get("grad_norm", {}))) for step, of in history.statistics]
    pairs = [(step, of[0], of[-1]) for step, of in norms if of]
    matching = [(step, first, last) for step, first, last in pairs if matches(first, last)]
    if not matching or 2 * len(matching) < len(pairs):
        return [], []
    step, first, last = matching[-1]
    evidence = (
        f"at step {step} the gradient of the first block has a norm of {first:.2g}, that of the "
        f"last {last:.2g}"
    )
    return [step for step, _, _ in matching], [evidence]


def _finding(name: str, shown: list[int], evidence: list[str], remedy: str) -> Finding | None:
    if not shown:
        return None
    return Finding(name, "error", (min(shown), max(shown)), ", and ".join(evidence), remedy)
