"""Single layers, one file each: ``init``, ``forward`` and the ``vjp`` derived by hand."""

from . import dropout, embedding, learned_positions, linear, softmax, unembedding
from .feedforward import gelu, silu, swiglu
from .norms import layer_norm, rms_norm
from .recurrent import causal_convolution
from .softmax_attention import attention, flash_attention, rotary, rotary_attention

__all__ = [
    "attention",
    "causal_convolution",
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
