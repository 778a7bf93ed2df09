"""The transformer without its head, in JAX."""

import numpy as np

from ..layers import dropout, embedding, rms_norm
from . import transformer_block


def forward(params, tokens, *, config, key=None):
    """Return the normalised vectors (B, T, D) of tokens (B, T)."""
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
    return rms_norm.forward(params["norm"], x, eps=config.norm_eps)
