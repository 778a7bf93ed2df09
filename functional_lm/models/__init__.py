"""The wiring: layers put together into a language model. No derivative formula stands here."""

from . import backbone, language_model, self_attention, transformer, transformer_block

__all__ = ["backbone", "language_model", "self_attention", "transformer", "transformer_block"]
