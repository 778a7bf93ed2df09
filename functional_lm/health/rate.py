"""A learning rate that is too high, at its peak or in the first steps.

What a rate means to a model shows in the first update. Adam's is the rate times the sign of each
gradient (Kingma and Ba 2015, section 2.1), so that its norm over that of a matrix is the rate over
the size of a weight: how far the rate would carry every weight in a step, seen from where it
starts. Of SGD's first update it is true as well that it is in proportion to the rate. The *reach*
of a rate is that ratio, for the median of the matrices. About 0.001 in each step is a rule of thumb
(Karpathy, CS231n notes), 0.03 to 0.1 at the peak is what the recipes of this library have, and
rates get worse for the end result from 0.2 to 0.3 on.
"""

import math

import numpy as np

from .activations import HARD
from .finding import Finding
from .history import History, matrices, stream

USUAL = 0.1
"""Of the rates that are best on Tiny Shakespeare, from a width of 32 to one of 256."""

FARTHEST = 0.5
"""The reach at which a step moves the weights by half of their size."""

FARTHEST_COLD = 0.25
"""The same for the first updates, when a step follows the signs of a single batch's gradient: this
is what a warm-up is for (Goyal et al. 2017; Liu et al. 2020; Kosson et al. 2024)."""

GROWN = 100.0
"""The growth of the residual stream that no run in order has: 20 in 2000 steps of the default."""


def rate_too_high(history: History) -> Finding | None:
    """The peak reaches too far, and it shows: see `_harm`.

    Without a warm-up the harm may come from the first steps alone; then the reach must be twice as
    far, and `no_warm_up` is found too.
    """
    reach = _reach(history)
    if reach is None:
        return None
    peak = float(np.nanmax(history.lr))
    farthest = FARTHEST if _warm_up(history) else 2 * FARTHEST
    harm = _harm(history)
    if reach * peak < farthest or not harm:
        return None
    at = history.steps[history.lr >= 0.5 * peak]
    return Finding(
        "learning rate too high",
        "error",
        (int(at[0]), int(at[-1])),
        f"at the peak of {peak:.1e} a step moves a weight by {reach * peak:.2g} of its first size, "
        f"and {', and '.join(harm)}",
        f"try a rate of {USUAL / reach:.0e}, or functional-lm find-lr",
    )


def no_warm_up(history: History) -> Finding | None:
    """The first step is made at the full rate, and it reaches too far."""
    reach = _reach(history)
    if reach is None or _warm_up(history) or reach * history.lr[0] < FARTHEST_COLD:
        return None
    early = history.finite
    early = early._replace(loss=early.loss[:20], steps=early.steps[:20])
    falls = np.minimum.accumulate(early.loss)
    risen = float((early.loss - falls).max())
    said = f"the first step was made at the full rate of {history.lr[0]:.1e} and moved the weights "
    said += f"by {reach * history.lr[0]:.2g} of their size"
    if risen > 0.1:
        said += f"; within {len(early.loss)} steps the loss rose by {risen:.2g} again"
    return Finding(
        "no warm-up",
        "warning",
        (int(history.steps[0]), int(early.steps[-1])),
        said,
        "let the rate rise over the first hundred steps: warmup_steps=100",
    )


def _reach(history: History) -> float | None:
    """Return the median first ratio of update to matrix, for a rate of one."""
    first = history.initial
    rate = history.lr[0] if len(history.lr) else 0.0
    if first is None or not rate > 0:
        return None
    ratios = [ratio for ratio in matrices(first["update_ratio"]).values() if np.isfinite(ratio)]
    return float(np.median(ratios)) / float(rate) if ratios else None


def _warm_up(history: History) -> bool:
    return bool(history.lr[0] < 0.5 * np.nanmax(history.lr))


def _harm(history: History) -> list[str]:
    """Say what a rate has done, of what such a rate does.

    Attention collapses to one key (Zhai et al. 2023), the residual stream grows without bound,
    the loss is above its start, or is no number.
    """
    said = []
    first = history.statistics[0][1]
    start = max(stream(first).values(), default=math.inf)
    for step, later in history.statistics[1:]:
        spreads = list(stream(later).values())
        collapsed = [
            entropy
            for block, entropy in later["attention_entropy"].items()
            if entropy < HARD < first["attention_entropy"].get(block, 0.0)
        ]
        if not np.isfinite(spreads).all():
            said.append(f"at step {step} activations were not finite")
        elif max(spreads, default=0.0) > GROWN * start:
            said.append(
                f"by step {step} the residual stream had grown from {start:.2g} to "
                f"{max(spreads):.2g}"
            )
        elif collapsed:
            said.append(
                f"by step {step} the attention of a block had collapsed to {min(collapsed):.2g} "
                "nats"
            )
        if said:
            break
    loss = history.finite.loss
    if len(loss) and np.median(loss[len(loss) // 10 :]) > loss[0]:
        said.append(f"the loss is mostly above its start of {loss[0]:.3g}")
    if history.faults:
        said.append(f"{len(history.faults)} updates were not finite")
    return said
