"""Single layers, one file each: ``init``, ``forward`` and the ``vjp`` derived by hand."""

from . import (
    attention,
    dropout,
    embedding,
    flash_attention,
    gelu,
    layer_norm,
    learned_positions,
    linear,
    rms_norm,
    rotary,
    rotary_attention,
    silu,
    softmax,
    swiglu,
    unembedding,
)

__all__ = [
    "attention",
    "dropout",
    "embedding",
    "flash_attention",
    "gelu",
    "layer_norm",
    "learned_positions",
    "linear",
    "rms_norm",
    "rotary",
    "rotary_attention",
    "silu",
    "softmax",
    "swiglu",
    "unembedding",
]
