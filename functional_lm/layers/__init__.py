"""Single layers, one file each: ``init``, ``forward`` and the ``vjp`` derived by hand."""

from . import dropout, embedding, learned_positions, linear, soft_cap, softmax, unembedding
from .feedforward import gated, gelu, relu, relu_squared, silu, swiglu
from .norms import layer_norm, rms_norm
from .recurrent import causal_convolution
from .routing import routed_experts, top_k_router
from .softmax_attention import attention, flash_attention, rotary, rotary_attention

__all__ = [
    "attention",
    "causal_convolution",
    "dropout",
    "embedding",
    "flash_attention",
    "gated",
    "gelu",
    "layer_norm",
    "learned_positions",
    "linear",
    "relu",
    "relu_squared",
    "rms_norm",
    "rotary",
    "rotary_attention",
    "routed_experts",
    "silu",
    "soft_cap",
    "softmax",
    "swiglu",
    "top_k_router",
    "unembedding",
]
