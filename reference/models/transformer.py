"""The decoder-only transformer in JAX."""

from ..layers import unembedding
from . import backbone


def forward(params, tokens, *, config, key=None):
    """Return the logits (..., T, V) of tokens (..., T)."""
    if tokens.ndim == 1:
        return forward(params, tokens[None], config=config, key=key)[0]
    x = backbone.forward(params, tokens, config=config, key=key)
    return unembedding.forward(params["embedding" if config.tie_embeddings else "unembedding"], x)
