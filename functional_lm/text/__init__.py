"""Tokenizers, corpora and batches."""

from .batches import batch_at, epoch_batch_at, shuffled_batch_at, split, steps_per_epoch, windows
from .corpora import CORPORA, Corpus, EncodedCorpus, load_corpus, read_corpus
from .download import DownloadError
from .file_corpus import FileCorpus, Part
from .mixture import Mixture, mixed_batch_at
from .subword import SubwordTokenizer
from .tokenizer import (
    TOKENIZERS,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    continuation,
    fingerprint,
    load_tokenizer,
    make_tokenizer,
    tokenizer_of,
)

__all__ = [
    "CORPORA",
    "TOKENIZERS",
    "ByteTokenizer",
    "CharTokenizer",
    "Corpus",
    "DownloadError",
    "EncodedCorpus",
    "FileCorpus",
    "Mixture",
    "Part",
    "SubwordTokenizer",
    "Tokenizer",
    "batch_at",
    "continuation",
    "epoch_batch_at",
    "fingerprint",
    "load_corpus",
    "load_tokenizer",
    "make_tokenizer",
    "mixed_batch_at",
    "read_corpus",
    "shuffled_batch_at",
    "split",
    "steps_per_epoch",
    "tokenizer_of",
    "windows",
]
