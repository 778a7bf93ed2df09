"""The wiring: layers put together into a language model. No derivative formula stands here."""

from . import language_model, self_attention, transformer, transformer_block

__all__ = ["language_model", "self_attention", "transformer", "transformer_block"]
