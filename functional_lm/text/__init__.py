"""Tokenizers, corpora and batches."""

from .batches import batch_at, epoch_batch_at, shuffled_batch_at, split, steps_per_epoch, windows
from .corpora import CORPORA, Corpus, load_corpus, read_corpus
from .download import DownloadError
from .file_corpus import FileCorpus, Part
from .mixture import Mixture, mixed_batch_at
from .tokenizer import TOKENIZERS, CharTokenizer, Tokenizer, load_tokenizer

__all__ = [
    "CORPORA",
    "TOKENIZERS",
    "CharTokenizer",
    "Corpus",
    "DownloadError",
    "FileCorpus",
    "Mixture",
    "Part",
    "Tokenizer",
    "batch_at",
    "epoch_batch_at",
    "load_corpus",
    "load_tokenizer",
    "mixed_batch_at",
    "read_corpus",
    "shuffled_batch_at",
    "split",
    "steps_per_epoch",
    "windows",
]
