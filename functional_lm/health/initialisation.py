"""An initialisation of the wrong scale."""

import math

import numpy as np

from .finding import Finding
from .history import History, stream

EXCESS = 0.5
"""Nats above ln V. Logits of normal noise with a standard deviation of s have a mean loss of about
ln V + s²/2, so that this is s = 1: the model is sure of something before it has seen anything."""

WIDEST = 10.0
"""The standard deviation of the residual stream. An initialisation is made so that it is about one
(Glorot and Bengio 2010; He et al. 2015), whatever the depth; it is 0.5 to 0.7 here."""


def bad_initialisation(history: History) -> Finding | None:
    """The loss of the first batch, or the spread of the first activations, is far too large."""
    if not len(history.steps) or history.steps[0] != 1:
        return None
    said = []
    loss, vocab_size = history.loss[0], history.vocab_size
    if vocab_size and not loss <= math.log(vocab_size) + EXCESS:
        value = f"{loss:.3g}" if math.isfinite(loss) else "no number"
        said.append(
            f"the first loss is {value} where ln {vocab_size} = {math.log(vocab_size):.3g} is to "
            "know nothing"
        )
    spreads = {} if history.initial is None else stream(history.initial)
    if not all(spread <= WIDEST for spread in spreads.values()):
        widest = max(spreads, key=lambda block: np.nan_to_num(spreads[block], nan=math.inf))
        spread = spreads[widest]
        value = f"with a standard deviation of {spread:.3g}"
        if not math.isfinite(spread):
            value = "not finite"
        said.append(f"the activations after {widest} start {value}")
    if not said:
        return None
    return Finding(
        "bad initialisation",
        "error",
        (1, 1),
        ", and ".join(said),
        "draw the embedding from N(0, 0.02²) and each matrix with a variance of 2/(d_in + d_out), "
        "as init does",
    )
