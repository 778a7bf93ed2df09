"""The keys and values of whole prompts, in one pass.

It is the forward of the model without its end: the last block's keys and values need neither
that block's feed-forward layer nor the logits.
"""

from collections.abc import Iterator

import numpy as np

from ..contract import Array, Tree
from ..layers import attention, linear, rms_norm, rotary, swiglu
from ..layers.attention import QKV
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
    B, T = tokens.shape
    H, G, K = config.n_heads, config.n_kv_heads or config.n_heads, config.d_model // config.n_heads
    order = half_to_interleaved(K) if config.rope_pairing == "half" else np.arange(K)
    positions = np.arange(T)
    x = params["embedding"]["weight"][tokens]  # (B, T, D)
    for i, block in enumerate(params["blocks"]):
        h, _ = rms_norm.forward(block["norm1"], x, eps=config.norm_eps)
        packed, _ = linear.forward({"weight": block["attention"]["qkv"]}, h)
        heads = packed.reshape(B, T, H + 2 * G, K)
        qk, _ = rotary.forward(
            {},
            heads[:, :, : H + G],
            positions=positions,
            theta=config.rope_theta,
            pairing=config.rope_pairing,
        )
        q, k, v = qk[:, :, :H], qk[:, :, H:], heads[:, :, H + G :]
        yield k[..., order].swapaxes(1, 2), v.swapaxes(1, 2)
        if i + 1 == config.n_layers:
            return
        attended, _ = attention.forward({}, QKV(q, k, v), causal=True)
        a, _ = linear.forward({"weight": block["attention"]["out"]}, attended.reshape(B, T, H * K))
        x = x + a
        h, _ = rms_norm.forward(block["norm2"], x, eps=config.norm_eps)
        m, _ = swiglu.forward(block["mlp"], h)
        x = x + m
