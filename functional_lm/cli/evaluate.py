"""``functional-lm evaluate``."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Literal

import numpy as np

from ..contract import Array, expect_choice, expect_fields, expect_int
from ..runs import Run, open_run
from ..runs.folder import table_of
from ..text import Corpus, FileCorpus, Mixture, Tokenizer, load_corpus, read_corpus
from ..training import text_losses
from ..training.evaluation import bits_per_byte
from .display import watched
from .flags import Source
from .output import print
from .runs import RunFolder


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on a text: loss, perplexity, bits per byte and per character.

    Attributes:
        folder: the folder of a run.
        text_file: a text, measured whole. Not given: the text of the run.
        encoding: the encoding of the file.
        part: which part of the run's text: the last tenth, which was held out (the default), the
            first nine tenths, or all.
        seq_len: tokens in a window. Not given: as in training.
        json: print one JSON object with the keys loss, perplexity, bits_per_byte,
            bits_per_character.
        trust_model: run the code that comes with the run, whoever wrote it.
    """

    folder: RunFolder
    text_file: Path | None = None
    encoding: str = "utf-8"
    part: Literal["validation", "training", "all"] | None = None
    seq_len: int | None = None
    json: bool = False
    trust_model: bool = False

    def __post_init__(self) -> None:
        parts = {"choices": ["validation", "training", "all"]}
        expect_fields(self, (expect_int, "seq_len", {}), (expect_choice, "part", parts))
        if self.text_file is not None and self.part is not None:
            raise ValueError(
                "a text file is measured whole, and --part is of the run's own text: got --part "
                f"{self.part} and --text-file {self.text_file}; leave one out"
            )

    def run(self) -> int:
        """Print the figures."""
        run = open_run(self.folder, trust_model=self.trust_model)
        tokens, counts, source = self._tokens(run)
        longest = run.model.config.max_seq_len
        seq_len = self.seq_len
        if seq_len is None:
            seq_len = table_of(run.settings, "training").get("seq_len", longest)
        if expect_int("seq_len", seq_len) > longest:
            raise ValueError(
                f"seq_len must be at most max_seq_len: got {seq_len} and {longest}; lower it"
            )
        losses = text_losses(run.model, run.params, tokens, seq_len)
        *_, loss = watched(f"evaluating {len(tokens):,} tokens", losses)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss must be finite: got {loss}; check the weights")
        token_bytes = None if counts else run.tokenizer.token_bytes
        figures: dict[str, float | None] = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            **{
                f"bits_per_{unit}": bits_per_byte(
                    *(loss, tokens, seq_len),
                    token_bytes=token_bytes if unit == "byte" else None,
                    sizes=counts.get(unit),
                )
                for unit in ("byte", "character")
            },
        }
        if self.json:
            print(json.dumps(figures))
            return 0
        print(f"text                {source}: {len(tokens):,} tokens, windows of {seq_len}")
        print(f"loss                {figures['loss']:.4f} nats per token")
        print(f"perplexity          {figures['perplexity']:.3f}")
        for unit in ("byte", "character"):
            if (bits := figures[f"bits_per_{unit}"]) is not None:
                print(f"{f'bits per {unit}':20}{bits:.4f}")
        return 0

    def _tokens(self, run: Run) -> tuple[Array, dict[str, Array], str]:
        """Return what is measured, how many bytes and characters each token has, and its name."""
        if self.text_file is not None:
            text = read_corpus(self.text_file, encoding=self.encoding).text
            return *_counted(run.tokenizer, text), str(self.text_file)
        record = table_of(run.settings, "text")
        file, corpus_name = record.get("text_file"), record.get("corpus")
        if "sha256" not in record or not isinstance(file, str | None):
            raise ValueError(f"{self.folder} does not say what it was trained on; pass --text-file")
        corpus: Corpus | FileCorpus
        if record.get("data"):
            corpus = Source.of_record(record).load_text()
        elif file is not None:
            corpus = read_corpus(file, encoding=record.get("encoding", "utf-8"))
        else:
            corpus = load_corpus(corpus_name)
        if corpus.sha256 != record["sha256"]:
            raise ValueError(
                f"{corpus.source} is not the text that {self.folder} was trained on; pass the text "
                "to measure as --text-file"
            )
        source = f"{self.part or 'validation'} part of {corpus.source}"
        if isinstance(corpus, Corpus):
            bounds = {"training": (0, corpus.border), "all": (0, None)}
            start, stop = bounds.get(self.part or "", (corpus.border, None))
            return *_counted(run.tokenizer, corpus.text[start:stop]), source
        training, held_out = corpus.encode(run.tokenizer)
        if self.part in (None, "validation"):
            return held_out, {}, source
        if isinstance(training, Mixture):
            raise ValueError(
                f"the training part of several texts has no one loss: got --part {self.part}; pass "
                "one of them as --text-file"
            )
        tokens = training if self.part == "training" else np.concatenate([training, held_out])
        return tokens, {}, source


def _counted(tokenizer: Tokenizer, text: str) -> tuple[Array, dict[str, Array]]:
    """Return the tokens of a text, and how many bytes and characters each stands for, (N,)."""
    tokens, sizes = tokenizer.sized(text)
    begins = np.frombuffer(text.encode(), np.uint8) & 0xC0 != 0x80
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    characters = np.diff(np.concatenate([[0], np.cumsum(begins)])[ends])
    return tokens, {"byte": sizes, "character": characters}
