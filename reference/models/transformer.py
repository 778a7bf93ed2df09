"""The decoder-only transformer in JAX."""

import numpy as np

from ..layers import dropout, embedding, rms_norm, unembedding
from . import transformer_block


def forward(params, tokens, *, config, key=None):
    """Return the logits (..., T, V) of tokens (..., T)."""
    if tokens.ndim == 1:
        return forward(params, tokens[None], config=config, key=key)[0]
    x = embedding.forward(params["embedding"], tokens)
    x = dropout.forward({}, x, rate=config.dropout, key=None if key is None else (*key, 0))
    for i, block in enumerate(params["blocks"]):
        x = transformer_block.forward(
            block,
            x,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            positions=np.arange(tokens.shape[-1]),
            norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            rope_pairing=config.rope_pairing,
            dropout=config.dropout,
            key=None if key is None else (*key, i + 1),
        )
    x = rms_norm.forward(params["norm"], x, eps=config.norm_eps)
    return unembedding.forward(params["embedding" if config.tie_embeddings else "unembedding"], x)
