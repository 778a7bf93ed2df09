"""Text from a model: pure functions on logits, and the loop that samples."""

from .decode import generate, until_stop
from .sampling import (
    Transform,
    chain,
    min_p,
    repetition_penalty,
    sample,
    temperature,
    top_k,
    top_p,
)

__all__ = [
    "Transform",
    "chain",
    "generate",
    "min_p",
    "repetition_penalty",
    "sample",
    "temperature",
    "top_k",
    "top_p",
    "until_stop",
]
