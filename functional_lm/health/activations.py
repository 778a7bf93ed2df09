"""Layers that do nothing, and attention that cannot change its mind."""

import numpy as np

from .finding import Finding
from .history import History, relative_entropy

DEAD_SHARE = 0.4
"""Of a layer's units. SwiGLU has none in order; of ReLU's, "as much as 40%" can be dead if the rate
is too high (CS231n notes), and some are silent in any small sample of tokens."""

HARD = 0.05
"""Nats. A query that gives 99% of its weight to one key and 1% to another has 0.056; blocks of runs
in order have 0.2 and more, in the mean over heads and queries."""

SHARP_FROM_THE_START = 0.5
"""Of the entropy of uniform attention, at the first step. The scale 1/√K is there to keep the
scores of the initialisation near one (Vaswani et al. 2017, section 3.2.1): 0.75 to 0.95 here."""


def dead_units(history: History) -> Finding | None:
    """Units that are zero for every token, or leaves without any gradient.

    The state must be there at the last statistics and at others: a matrix of zeros on a residual
    branch, which some initialisations have, keeps the gradient from the others for one step only.
    """
    if len(history.statistics) < 2:
        return None
    step, last = history.statistics[-1]
    earlier = history.statistics[-2][1]
    dead = {
        site: share
        for site, share in last["zero_share"].items()
        if share >= DEAD_SHARE and earlier["zero_share"].get(site, 0.0) >= DEAD_SHARE
    }
    unmoved = [
        leaf
        for leaf, norm in last["grad_norm"].items()
        if norm == 0 and all(of["grad_norm"].get(leaf) == 0 for _, of in history.statistics)
    ]
    if not dead and not unmoved:
        return None
    said = [
        f"{share:.0%} of the units of {site} are zero for every token"
        for site, share in dead.items()
    ]
    if unmoved:
        more = f" and {len(unmoved) - 4} more" if len(unmoved) > 4 else ""
        said.append(f"the gradient of {', '.join(unmoved[:4])}{more} is zero at every step")
    whole = bool(unmoved) or max(dead.values()) > 0.9
    first = history.statistics[0][0] if unmoved else history.statistics[-2][0]
    return Finding(
        "dead units",
        "error" if whole else "warning",
        (first, step),
        ", and ".join(said),
        "draw the weights of the layer anew, at random and not zero; if they died on the way, "
        "lower the learning rate",
    )


def saturated_attention(history: History) -> Finding | None:
    """A block's queries see one key each, from the start or later on.

    Then the softmax has no slope, and queries and keys get no gradient (Zhai et al. 2023, on the
    collapse of attention entropy).
    """
    first = {} if history.initial is None else relative_entropy(history.initial)
    said, shown = [], []
    for block, relative in first.items():
        if relative < SHARP_FROM_THE_START:
            shown.append(1)
            said.append(
                f"the attention of {block} starts at {relative:.2g} of a uniform one's entropy"
            )
    if not said:
        hard = [
            (step, block, entropy)
            for step, figures in history.statistics
            for block, entropy in figures["attention_entropy"].items()
            if entropy < HARD < figures["attention_uniform"].get(block, 0.0)
        ]
        if not hard or hard[-1][0] != history.statistics[-1][0]:
            return None
        shown = [step for step, _, _ in hard]
        step, block, entropy = hard[-1]
        said = [f"the attention of {block} has an entropy of {entropy:.2g} nats at step {step}"]
    return Finding(
        "saturated attention",
        "warning",
        (min(shown), int(np.max(shown))),
        ", and ".join(said),
        "draw smaller query and key weights, check the scale 1/√K of the scores, or lower the "
        "learning rate",
    )
