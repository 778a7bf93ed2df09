"""Single layers, one file each: ``init``, ``forward`` and the ``vjp`` derived by hand."""

from . import dropout, embedding, learned_positions, linear, soft_cap, softmax, unembedding
from .adapters import bottleneck, dora, lora, prefix, prompt
from .feedforward import gated, gelu, relu, relu_squared, sigmoid, silu, swiglu
from .norms import l2_norm, layer_norm, rms_norm
from .recurrent import (
    causal_convolution,
    delta_gates,
    gated_delta_rule,
    linear_attention,
    selective_scan,
    time_step,
)
from .routing import routed_experts, top_k_router
from .softmax_attention import attention, flash_attention, rotary, rotary_attention

__all__ = [
    "attention",
    "bottleneck",
    "causal_convolution",
    "delta_gates",
    "dora",
    "dropout",
    "embedding",
    "flash_attention",
    "gated",
    "gated_delta_rule",
    "gelu",
    "l2_norm",
    "layer_norm",
    "learned_positions",
    "linear",
    "linear_attention",
    "lora",
    "prefix",
    "prompt",
    "relu",
    "relu_squared",
    "rms_norm",
    "rotary",
    "rotary_attention",
    "routed_experts",
    "selective_scan",
    "sigmoid",
    "silu",
    "soft_cap",
    "softmax",
    "swiglu",
    "time_step",
    "top_k_router",
    "unembedding",
]
