"""The wiring: layers put together into models. No derivative formula stands here.

`transformer`, its blocks and their parts, and `language_model` are layers like any other; what
mixes the positions of a text is in `mixers`. Each architecture is a module that makes a
`transformer.Transformer`: `llama`, `gpt2`, `hybrid`.
"""

from . import (
    language_model,
    mixture_of_experts,
    mlp,
    parallel_block,
    transformer,
    transformer_block,
)
from .language_model import LanguageModel
from .loading import DEFAULT, Architecture, architectures, build, find
from .mixers import (
    linear_mixer,
    mamba2,
    multi_latent_attention,
    self_attention,
    short_convolution,
)

__all__ = [
    "DEFAULT",
    "Architecture",
    "LanguageModel",
    "architectures",
    "build",
    "find",
    "language_model",
    "linear_mixer",
    "mamba2",
    "mixture_of_experts",
    "mlp",
    "multi_latent_attention",
    "parallel_block",
    "self_attention",
    "short_convolution",
    "transformer",
    "transformer_block",
]
