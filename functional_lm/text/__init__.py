"""Tokenizers, corpora and batches."""

from .batches import batch_at, split, windows
from .char_tokenizer import CharTokenizer
from .corpora import Corpus, default_corpus, read_corpus

__all__ = [
    "CharTokenizer",
    "Corpus",
    "batch_at",
    "default_corpus",
    "read_corpus",
    "split",
    "windows",
]
