"""Text from a model: pure functions on logits, a cache of keys and values, loops that sample."""

from .decode import SPECULATE, Model, generate, generate_batch, until_stop
from .decoder import Decoder
from .sampling import (
    Transform,
    chain,
    min_p,
    most_likely,
    repetition_penalty,
    sample,
    temperature,
    top_k,
    top_p,
)
from .window import window_start

__all__ = [
    "SPECULATE",
    "Decoder",
    "Model",
    "Transform",
    "chain",
    "generate",
    "generate_batch",
    "min_p",
    "most_likely",
    "repetition_penalty",
    "sample",
    "temperature",
    "top_k",
    "top_p",
    "until_stop",
    "window_start",
]
