"""Single layers, one file each: ``init``, ``forward`` and the ``vjp`` derived by hand."""

from . import dropout, embedding, learned_positions, linear, softmax, unembedding
from .feedforward import gelu, silu, swiglu
from .norms import layer_norm, rms_norm
from .routing import routed_experts, top_k_router
from .softmax_attention import attention, flash_attention, rotary, rotary_attention

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
    "routed_experts",
    "silu",
    "softmax",
    "swiglu",
    "top_k_router",
    "unembedding",
]
