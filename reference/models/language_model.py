"""The language model's loss in JAX."""

from ..losses import cross_entropy
from . import transformer


def forward(params, tokens, *, targets, model, key=None, recompute=False):
    """Return the mean cross-entropy of the targets, plus the routers' losses."""
    logits = transformer.forward(params, tokens, model=model, key=key)
    auxiliary = 0
    if hasattr(logits, "auxiliary"):
        logits, auxiliary = logits
    return cross_entropy.forward({}, logits, targets=targets) + auxiliary
