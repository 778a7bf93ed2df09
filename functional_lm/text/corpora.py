"""Texts to train on, by name or from a file."""

import ast
import dataclasses
import functools
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..contract import Array
from ..files import read_text
from .download import DownloadError, content_fault, fetch
from .tokenizer import PIECE, CharTokenizer, Tokenizer

DATA_VARIABLE = "FUNCTIONAL_LM_DATA"

SHAKESPEARE_FILE = "tinyshakespeare.txt"
SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SIZE = 1_115_394
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

CORPORA = ("shakespeare", "stdlib")
"""The names that `load_corpus` knows."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text.

    Attributes:
        text: the text.
        source: where it came from, in words.
        notes: what is odd about its file, a line each.
    """

    text: str
    source: str
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of the text's UTF-8 bytes."""
        digest = hashlib.sha256()
        for start in range(0, len(self.text), PIECE):
            digest.update(self.text[start : start + PIECE].encode())
        return digest.hexdigest()

    @property
    def border(self) -> int:
        """Where the last tenth of the characters begins, which is held out."""
        return int(len(self.text) * 0.9)

    @property
    def record(self) -> dict[str, Any]:
        """What a run notes of its text."""
        return {"source": self.source, "characters": len(self.text), "sha256": self.sha256}

    def characters(self) -> CharTokenizer:
        """Return the tokenizer of the text's characters."""
        return CharTokenizer.train(self.text)

    def training_texts(self) -> list[str]:
        """Return the text without its last tenth."""
        return [self.text[: self.border]]

    def encode(self, tokenizer: Tokenizer) -> tuple[Array, Array]:
        """Return the tokens to train on, and those of the last tenth of the text.

        The text is split, not the tokens, so that all tokenizers have the same text held out.

        Raises:
            ValueError: if the tokenizer cannot encode the text.
        """
        try:
            parts = self.text[: self.border], self.text[self.border :]
            return tokenizer.encode(parts[0]), tokenizer.encode(parts[1])
        except ValueError:
            tokenizer.encode(self.text)  # its error has the position in the whole text
            raise

    def held_out_sizes(self, tokenizer: Tokenizer) -> Array:
        """Return how many bytes of the text each held-out token stands for."""
        return tokenizer.sized(self.text[self.border :])[1]


@dataclasses.dataclass(frozen=True)
class EncodedCorpus:
    """A text as another process has read and encoded it.

    Attributes:
        tokens: (N,) to train on.
        held_out: (M,) the rest.
        sha256: the hash of the text's UTF-8 bytes.
    """

    tokens: Array
    held_out: Array
    sha256: str

    def encode(self, tokenizer: Tokenizer) -> tuple[Array, Array]:
        """Return the tokens, which are those of the run's tokenizer."""
        return self.tokens, self.held_out

    def held_out_sizes(self, tokenizer: Tokenizer) -> None:
        """Return None: there are tokens alone."""


def load_corpus(
    name: str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    url: str = SHAKESPEARE_URL,
    cache: Path | None = None,
    progress: Callable[[float], object] = lambda share: None,
) -> Corpus:
    """Return a corpus by name.

    ``shakespeare`` is Tiny Shakespeare, 1,115,394 bytes of 65 characters: from the folder that the
    variable FUNCTIONAL_LM_DATA names, else from the user's cache folder, else downloaded and
    cached. Its hash is checked each time. ``stdlib`` is made offline; see `stdlib_corpus`.

    Args:
        name: one of `CORPORA`. None: ``shakespeare``, or ``stdlib`` if it cannot be downloaded;
            then the source says why.
        environment: where to look for the variable.
        url: where to download from.
        cache: the cache folder; the user's own if not given.
        progress: called with the share of a download that has arrived, in another thread.

    Raises:
        DownloadError: if ``shakespeare`` was asked for and cannot be downloaded.
        ValueError: for an unknown name, a FUNCTIONAL_LM_DATA that is no folder, or a file there
            that is another text.
    """
    if name not in (None, *CORPORA):
        raise ValueError(
            f"corpus must be one of {', '.join(CORPORA)}: got {name!r}; "
            "for your own text, pass its file"
        )
    if name == "stdlib":
        return stdlib_corpus()
    try:
        return _shakespeare(environment.get(DATA_VARIABLE), url, cache, progress)
    except DownloadError as error:
        if name is not None:
            raise DownloadError(
                f"{error}; pass another text with --text-file, or --corpus stdlib"
            ) from error
        corpus = stdlib_corpus()
        return dataclasses.replace(corpus, source=f"{corpus.source} ({error})")


def read_corpus(path: str | Path, *, encoding: str = "utf-8") -> Corpus:
    """Read a text file.

    Args:
        path: of the file.
        encoding: of the text; any that Python knows.

    Raises:
        FileFormatError: if it is empty, or not in that encoding, with the offset of the first bad
            byte.
        OSError: if it cannot be read.
        ValueError: for an unknown encoding.
    """
    notes: list[str] = []
    text = read_text(path, encoding=encoding, note=notes.append)
    return Corpus(text, str(path), tuple(notes))


def stdlib_corpus() -> Corpus:
    """Return the docstrings of the running Python's standard library, its top-level modules.

    The same Python version always gives the same text. Only ASCII docstrings count, so that the
    vocabulary stays small.
    """
    docstrings = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        docstrings += [text for text in _docstrings(path) if text.isascii()]
    return Corpus("\n\n".join(docstrings) + "\n", "docstrings of the Python standard library")


def _shakespeare(
    folder: str | None, url: str, cache: Path | None, progress: Callable[[float], object]
) -> Corpus:
    expected = {"size": SHAKESPEARE_SIZE, "sha256": SHAKESPEARE_SHA256}
    if folder and not Path(folder).is_dir():
        raise ValueError(
            f"{DATA_VARIABLE} must name a folder with texts: there is none at {folder}; "
            "correct it or unset it"
        )
    if folder and (path := Path(folder) / SHAKESPEARE_FILE).is_file():
        data = _beginning(path)
        fault = content_fault(data, **expected)  # type: ignore[arg-type]
        if fault:
            raise ValueError(
                f"{path} must be Tiny Shakespeare: {fault}; for another text pass it as a text file"
            )
        return Corpus(data.decode(), f"Tiny Shakespeare from {path}")
    if cache is None:
        import platformdirs

        cache = platformdirs.user_cache_path("functional_lm")
    path = cache / SHAKESPEARE_FILE
    if path.is_file():
        data = _beginning(path)
        if content_fault(data, **expected) is None:  # type: ignore[arg-type]
            return Corpus(data.decode(), f"Tiny Shakespeare from {path}")
    data = fetch(url, path, progress=progress, **expected)  # type: ignore[arg-type]
    kept = f"kept in {path}" if path.is_file() else f"not kept, since {cache} cannot be written"
    return Corpus(data.decode(), f"Tiny Shakespeare, downloaded ({kept})")


def _beginning(path: Path) -> bytes:
    """Return a file, or enough of it to see that it is too long."""
    with path.open("rb") as file:
        return file.read(SHAKESPEARE_SIZE + 1)


def _docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and functions, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring
