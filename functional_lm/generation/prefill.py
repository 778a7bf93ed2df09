"""The keys and values of whole prompts, in one pass: they are residuals of the blocks."""

from collections.abc import Iterator

import numpy as np

from ..contract import Array, Tree
from ..models import self_attention, transformer_block
from ..models.transformer import Config
from .folding import half_to_interleaved


def keys_and_values(params: Tree, tokens: Array, config: Config) -> Iterator[tuple[Array, Array]]:
    """Yield the turned keys and the values of each block, (B, G, T, K) each.

    Keys are interleaved, as `folding` has them. Prompts of different lengths are padded on the
    right: no token sees those after it, so the padding changes nothing but its own entries.

    Args:
        params: of the transformer.
        tokens: (B, T).
        config: sizes and settings.
    """
    K = config.d_model // config.n_heads
    order = half_to_interleaved(K) if config.rope_pairing == "half" else np.arange(K)
    x = params["embedding"]["weight"][tokens]  # (B, T, D)
    for block in params["blocks"]:
        x, residuals = transformer_block.forward(
            block,
            x,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            positions=np.arange(tokens.shape[1]),
            norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            rope_pairing=config.rope_pairing,
            attention=config.attention,
        )
        k, v = self_attention.keys_and_values(residuals.attention)  # (B, T, G, K)
        yield k[..., order].swapaxes(1, 2), v.swapaxes(1, 2)
