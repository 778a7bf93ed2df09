"""Tokenizers, corpora and batches."""

from .batches import batch_at, epoch_batch_at, split, steps_per_epoch, windows
from .char_tokenizer import CharTokenizer
from .corpora import CORPORA, Corpus, load_corpus, read_corpus
from .download import DownloadError

__all__ = [
    "CORPORA",
    "CharTokenizer",
    "Corpus",
    "DownloadError",
    "batch_at",
    "epoch_batch_at",
    "load_corpus",
    "read_corpus",
    "split",
    "steps_per_epoch",
    "windows",
]
