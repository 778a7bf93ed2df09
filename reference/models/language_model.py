"""The language model's loss in JAX."""

from ..losses import cross_entropy
from . import transformer


def forward(params, tokens, *, targets, model, key=None, auxiliary=True, recompute=False, **loss):
    """Return the mean cross-entropy of the targets, plus the routers' losses if asked for."""
    logits = transformer.forward(params, tokens, model=model, key=key)
    of_blocks = 0
    if hasattr(logits, "auxiliary"):
        logits, of_blocks = logits
    return cross_entropy.forward({}, logits, targets=targets, **loss) + of_blocks * auxiliary
