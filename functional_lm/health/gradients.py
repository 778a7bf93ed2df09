"""Gradients that vanish or explode on their way through the layers.

The blocks of a model are compared, numbered leaves such as ``blocks.3.attention.qkv``, each by the
norm of all its leaves together. In a transformer with norms before its branches they differ little
(Xiong et al. 2020); in a chain without skip paths they form a geometric series (Glorot and Bengio
2010; Pascanu et al. 2013).
"""

import math
from collections.abc import Callable

import numpy as np

from .finding import Finding
from .history import History

FACTOR = 100.0
"""Between the first block and the last. Blocks of runs in order differ by a factor of 2 to 10."""

SMALLEST = 1e-5
"""The norm of a whole gradient: of 0.8 million weights each entry is then at Adam's ε = 1e-8, below
which a step is lost. Runs in order have 0.3 to 3."""

LONGEST = 10.0
"""The median norm of a whole gradient. Clipping at 1 leaves less than a tenth of it; half of the
usual norm, and more, is known to be harmless (Pascanu et al. 2013, section 3.2)."""


def vanishing_gradients(history: History) -> Finding | None:
    """The first blocks get a far smaller gradient than the last, or the model hardly any."""
    said = _by_block(history, lambda first, last: 0 < first * FACTOR < last)
    shown = [step for step, _ in said]
    evidence = ""
    if said:
        step, (first, last) = said[-1]
        evidence = f"at step {step} the gradient of the first block has a norm of {first:.2g}, that"
        evidence += f" of the last {last:.2g}"
    small = (history.grad_norm < SMALLEST) & (history.loss > 0.1 * history.loss[0])
    if len(small) and small.any():
        shown += history.steps[small].tolist()
        norm = float(history.grad_norm[small][0])
        whole = f"at step {shown[-1]} the norm of the whole gradient is {norm:.2g}"
        evidence = f"{evidence}, and {whole}" if evidence else whole
    if not shown:
        return None
    return Finding(
        "vanishing gradients",
        "error",
        (min(shown), max(shown)),
        evidence,
        "add skip paths and norms, or draw larger weights, so that activations and gradients keep "
        "their size from layer to layer",
    )


def exploding_gradients(history: History) -> Finding | None:
    """The first blocks get a far larger gradient than the last, or all of it is far too long."""
    said = _by_block(history, lambda first, last: first > FACTOR * last > 0)
    shown = [step for step, _ in said]
    evidence = ""
    if said:
        step, (first, last) = said[-1]
        evidence = f"at step {step} the gradient of the first block has a norm of {first:.2g}, that"
        evidence += f" of the last {last:.2g}"
    known = history.grad_norm[np.isfinite(history.grad_norm)]
    if len(known) and np.median(known) > LONGEST:
        shown += [int(history.steps[0]), int(history.steps[-1])]
        whole = f"the norm of the whole gradient has a median of {np.median(known):.3g}, and was "
        whole += f"{known.max():.3g} at most"
        evidence = f"{evidence}, and {whole}" if evidence else whole
    if not shown:
        return None
    return Finding(
        "exploding gradients",
        "error",
        (min(shown), max(shown)),
        evidence,
        "clip the gradient, draw smaller weights, and add skip paths and norms, so that gradients "
        "keep their size from layer to layer",
    )


def block_norms(figures: dict[str, float]) -> list[float]:
    """Return the norm of the gradient of each numbered block, in order; [] if there are none.

    >>> block_norms({"blocks.0.w": 3.0, "blocks.0.v": 4.0, "blocks.1.w": 2.0, "norm.scale": 1.0})
    [5.0, 2.0]
    """
    stacks: dict[str, dict[int, float]] = {}
    for leaf, figure in figures.items():
        names = leaf.split(".")
        for i, name in enumerate(names):
            if name.isdecimal():
                blocks = stacks.setdefault(".".join(names[:i]), {})
                blocks[int(name)] = math.hypot(blocks.get(int(name), 0.0), figure)
                break
    longest = max(stacks.values(), key=len, default={})
    return [longest[i] for i in sorted(longest)] if len(longest) > 1 else []


def _by_block(
    history: History, found: Callable[[float, float], bool]
) -> list[tuple[int, tuple[float, float]]]:
    """Return where it shows: in half of the statistics or more, else nowhere."""
    norms = [(step, block_norms(figures["grad_norm"])) for step, figures in history.statistics]
    pairs = [(step, (of[0], of[-1])) for step, of in norms if of]
    said = [(step, pair) for step, pair in pairs if found(*pair)]
    return said if 2 * len(said) >= len(pairs) else []
