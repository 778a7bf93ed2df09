"""Text from a model: pure functions on logits, and the loop that samples."""

from .decode import generate
from .sampling import keep_top_k, sample, scale_by_temperature

__all__ = ["generate", "keep_top_k", "sample", "scale_by_temperature"]
