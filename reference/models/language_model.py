"""The language model's loss in JAX."""

from ..losses import cross_entropy
from . import transformer


def forward(params, tokens, *, targets, config, key=None, recompute=False):
    """Return the mean cross-entropy of the targets."""
    logits = transformer.forward(params, tokens, config=config, key=key)
    return cross_entropy.forward({}, logits, targets=targets)
