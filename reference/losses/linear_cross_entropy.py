"""Unembedding and cross-entropy in JAX, one after the other."""

from ..layers import unembedding
from . import cross_entropy


def forward(
    params, x, *, targets, ignore_index=-100, chunk_size=256, recompute=False, frozen=False
):
    """Return optax's cross-entropy of all logits; how they are cut up changes nothing."""
    logits = unembedding.forward(params, x)
    return cross_entropy.forward({}, logits, targets=targets, ignore_index=ignore_index)
