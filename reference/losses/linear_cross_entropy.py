"""Unembedding and cross-entropy in JAX, one after the other."""

from ..layers import unembedding
from . import cross_entropy


def forward(
    params, x, *, targets, soft_cap=None, chunk_size=256, recompute=False, frozen=False, **settings
):
    """Return the cross-entropy of all logits; how they are cut up changes nothing."""
    logits = unembedding.forward(params, x, soft_cap=soft_cap)
    return cross_entropy.forward({}, logits, targets=targets, **settings)
