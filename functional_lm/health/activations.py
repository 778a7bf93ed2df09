"""Activations of the wrong size, dead units and saturated attention."""

import math
from collections.abc import Iterator

import numpy as np

from .history import History, Sign, attention, check, stream

EXCESS = 0.5
"""Nats above ln V. Logits of normal noise with standard deviation s have a mean loss of about
ln V + s²/2, so this is s = 1: the model is sure of something before it has seen anything."""

WIDEST = 10.0
"""Standard deviation of the residual stream. Initialisations keep it near one whatever the depth
(Glorot and Bengio 2010; He et al. 2015); it is 0.5 to 0.7 here."""

DEAD_SHARE = 0.4
"""Of a layer's units. A healthy SwiGLU has none; of ReLU's, "as much as 40%" can be dead if the
rate is too high (CS231n notes), and some are silent in any small sample of tokens."""

HARD = 0.05
"""Nats. A query that gives 99% of its weight to one key and 1% to another has 0.056; healthy blocks
have 0.2 and more, in the mean over heads and queries."""

SHARP_FROM_THE_START = 0.5
"""Of the entropy of uniform attention, at the first step. The scale 1/√K keeps the scores of the
initialisation near one (Vaswani et al. 2017, section 3.2.1), which gives 0.75 to 0.95 here."""


@check(
    "bad initialisation",
    needs="statistics",
    remedy="draw the embedding from N(0, 0.02²) and each matrix with a variance of "
    "2/(d_in + d_out), as init does",
    explains=("saturated attention", "exploding gradients", "vanishing gradients", "plateau"),
)
def bad_initialisation(history: History) -> Iterator[Sign]:
    """The loss of the first batch or the spread of the first activations is far too large."""
    if history.steps[0] != 1:
        return
    loss, vocab_size = history.loss[0], history.vocab_size
    if vocab_size and not loss <= math.log(vocab_size) + EXCESS:
        value = f"{loss:.3g}" if math.isfinite(loss) else "not finite"
        chance = f"ln {vocab_size} = {math.log(vocab_size):.3g}"
        yield Sign(1, 1, f"the first loss is {value}, but guessing at random gives {chance}")
    spreads = stream(history.initial or {})
    if not all(spread <= WIDEST for spread in spreads.values()):
        widest = max(spreads, key=lambda block: np.nan_to_num(spreads[block], nan=math.inf))
        spread = spreads[widest]
        finite = math.isfinite(spread)
        value = f"with a standard deviation of {spread:.3g}" if finite else "not finite"
        yield Sign(1, 1, f"the activations after {widest} start {value}")


@check(
    "dead units",
    needs="statistics",
    remedy="draw random, non-zero weights for the layer; if its units died during training, lower "
    "the learning rate",
    explains=("plateau",),
)
def dead_units(history: History) -> Iterator[Sign]:
    """Units are zero for every token, or leaves get no gradient at all.

    Only what shows in the last statistics and in earlier ones counts: some initialisations set a
    matrix on a residual branch to zero, which withholds the gradient from the others for one step.
    """
    if len(history.statistics) < 2:
        return
    (previous_step, previous), (step, last) = history.statistics[-2:]
    earlier = previous.get("zero_share", {})
    for site, share in last.get("zero_share", {}).items():
        if share >= DEAD_SHARE and earlier.get(site, 0.0) >= DEAD_SHARE:
            evidence = f"{share:.0%} of the units of {site} are zero for every token"
            yield Sign(previous_step, step, evidence, "error" if share > 0.9 else "warning")
    norms = [figures.get("grad_norm", {}) for _, figures in history.statistics]
    unmoved = [leaf for leaf in norms[-1] if all(of.get(leaf) == 0 for of in norms)]
    if unmoved:
        more = f" and {len(unmoved) - 4} more" if len(unmoved) > 4 else ""
        evidence = f"the gradient of {', '.join(unmoved[:4])}{more} is zero at every step"
        yield Sign(history.statistics[0][0], step, evidence)


@check(
    "saturated attention",
    needs="statistics",
    severity="warning",
    remedy="draw smaller query and key weights, check the scale 1/√K of the scores, or lower the "
    "learning rate",
    explains=("plateau",),
)
def saturated_attention(history: History) -> Iterator[Sign]:
    """The queries of a block see one key each, from the start or later.

    The softmax is flat there, so queries and keys get no gradient (Zhai et al. 2023, on attention
    entropy collapse).
    """
    sharp = {
        block: entropy / uniform
        for block, (entropy, uniform) in attention(history.initial or {}).items()
        if entropy < SHARP_FROM_THE_START * uniform
    }
    for block, share in sharp.items():
        yield Sign(1, 1, f"{block} starts with {share:.2g} of the entropy of uniform attention")
    hard = [
        (step, block, entropy)
        for step, figures in history.statistics
        for block, (entropy, uniform) in attention(figures).items()
        if entropy < HARD < uniform
    ]
    if not sharp and hard and hard[-1][0] == history.statistics[-1][0]:
        step, block, entropy = hard[-1]
        evidence = f"the attention of {block} has an entropy of {entropy:.2g} nats at step {step}"
        yield Sign(hard[0][0], step, evidence)
