"""A learning rate that is too high, at its peak or in the first steps.

The first update shows what a rate means to a model. Adam's is the rate times the sign of each
gradient (Kingma and Ba 2015, section 2.1), so its norm over that of a matrix is the rate over the
size of a weight: how far the rate moves a weight in one step, relative to where it starts. SGD's
first update is proportional to the rate too. The *reach* of a rate is that ratio, for the median
matrix. About 0.001 in each step is a rule of thumb (Karpathy, CS231n notes), 0.03 to 0.1 at the
peak is what the recipes of this library have, and rates give worse results from 0.2 to 0.3 on.
"""

import math
from collections.abc import Iterator

import numpy as np

from .activations import HARD
from .history import History, Sign, check, stream

USUAL = 0.1
"""Of the rates that are best on Tiny Shakespeare, from a width of 32 to one of 256."""

FARTHEST = 0.5
"""The reach at which a step moves the weights by half of their size."""

FARTHEST_COLD = 0.25
"""The same for the first updates, when a step follows the signs of a single batch's gradient: the
reason for a warm-up (Goyal et al. 2017; Liu et al. 2020; Kosson et al. 2024)."""

GROWN = 100.0
"""Growth of the residual stream beyond any healthy run: 20 in 2000 steps of the default."""


@check(
    "learning rate too high",
    needs="statistics",
    remedy="lower the learning rate; functional-lm find-lr suggests one",
    explains=(
        *("divergence", "plateau", "skipped updates", "saturated attention"),
        *("exploding gradients", "vanishing gradients", "dead units", "corrupted data"),
    ),
)
def rate_too_high(history: History) -> Iterator[Sign]:
    """The peak reaches too far, and does harm: see `_harm`.

    Without a warm-up the first steps alone may do the harm; then the reach must be twice as far,
    and `no_warm_up` is found too.
    """
    reach = _reach(history)
    if reach is None:
        return
    peak = float(np.nanmax(history.lr))
    farthest = FARTHEST if _warm_up(history) else 2 * FARTHEST
    harm = _harm(history)
    if reach * peak >= farthest and harm:
        at = history.steps[history.lr >= 0.5 * peak]
        yield Sign(
            at[0],
            at[-1],
            f"at the peak of {peak:.1e} a step moves a weight by {reach * peak:.2g} of its first "
            f"size, and {', and '.join(harm)}",
            remedy=f"try a rate of {USUAL / reach:.0e}, or the one that functional-lm find-lr "
            "suggests",
        )


@check(
    "no warm-up",
    needs="statistics",
    severity="warning",
    remedy="let the rate rise over the first hundred steps: warmup_steps=100",
    explains=("saturated attention", "dead units"),
)
def no_warm_up(history: History) -> Iterator[Sign]:
    """The first step is made at the full rate, and reaches too far."""
    reach = _reach(history)
    if reach is None or _warm_up(history) or reach * history.lr[0] < FARTHEST_COLD:
        return
    steps, losses = history.finite.steps[:20], history.finite.loss[:20]
    risen = float((losses - np.minimum.accumulate(losses)).max(initial=0.0))
    evidence = (
        f"the first step was made at the full rate of {history.lr[0]:.1e} and moved the weights by "
        f"{reach * history.lr[0]:.2g} of their size"
    )
    if risen > 0.1:
        evidence += f"; within {len(losses)} steps the loss rose by {risen:.2g} again"
    yield Sign(history.steps[0], max(steps, default=history.steps[0]), evidence)


def _reach(history: History) -> float | None:
    """Return the median first ratio of update to matrix, for a rate of one.

    Scales and biases are left out: they start at one or zero, whatever the size of the model.
    """
    rate = history.lr[0]
    if history.initial is None or not rate > 0:
        return None
    ratios = [
        ratio
        for leaf, ratio in history.initial.get("update_ratio", {}).items()
        if leaf.rpartition(".")[2] not in ("scale", "bias") and np.isfinite(ratio)
    ]
    return float(np.median(ratios)) / float(rate) if ratios else None


def _warm_up(history: History) -> bool:
    return bool(history.lr[0] < 0.5 * np.nanmax(history.lr))


def _harm(history: History) -> list[str]:
    """Return the harm that a rate has done, in words.

    Attention collapses to one key (Zhai et al. 2023), the residual stream grows without bound, or
    the loss is above its start or not finite.
    """
    harm = []
    first = history.statistics[0][1]
    start = max(stream(first).values(), default=math.inf)
    for step, later in history.statistics[1:]:
        spreads = list(stream(later).values())
        collapsed = [
            entropy
            for block, entropy in later.get("attention_entropy", {}).items()
            if entropy < HARD < first.get("attention_entropy", {}).get(block, 0.0)
        ]
        if not np.isfinite(spreads).all():
            harm.append(f"at step {step} activations were not finite")
        elif max(spreads, default=0.0) > GROWN * start:
            growth = f"from {start:.2g} to {max(spreads):.2g}"
            harm.append(f"by step {step} the residual stream had grown {growth}")
        elif collapsed:
            entropy = f"{min(collapsed):.2g} nats"
            harm.append(f"by step {step} the attention of a block had collapsed to {entropy}")
        if harm:
            break
    loss = history.finite.loss
    if len(loss) and np.median(loss[len(loss) // 10 :]) > loss[0]:
        harm.append(f"the loss is mostly above its start of {loss[0]:.3g}")
    if history.faults:
        harm.append(f"{len(history.faults)} updates were not finite")
    return harm
