"""Texts to train on."""

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

DATA_VARIABLE = "FUNCTIONAL_LM_DATA"
SHAKESPEARE_FILE = "tinyshakespeare.txt"


class Corpus(NamedTuple):
    """A text and where it came from, in words."""

    text: str
    source: str


def read_corpus(path: str | Path) -> Corpus:
    """Read a UTF-8 text file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is empty, or not UTF-8, with the position of the first bad byte.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"a text file must be UTF-8: {path} has the byte 0x{data[error.start]:02x} at offset "
            f"{error.start}; convert it first"
        ) from None
    if not text:
        raise ValueError(f"a text file must hold text: {path} is empty; pass another")
    return Corpus(text, str(path))


def default_corpus(environment: Mapping[str, str] = os.environ) -> Corpus:
    """Return Tiny Shakespeare from the folder named by FUNCTIONAL_LM_DATA, else `stdlib_corpus`."""
    folder = environment.get(DATA_VARIABLE)
    if folder and (path := Path(folder) / SHAKESPEARE_FILE).is_file():
        return read_corpus(path)
    corpus = stdlib_corpus()
    why = f"no {SHAKESPEARE_FILE} in {folder}" if folder else f"{DATA_VARIABLE} is not set"
    return Corpus(corpus.text, f"{corpus.source} ({why})")


def stdlib_corpus() -> Corpus:
    """Return the docstrings of the running Python's standard library, its top-level modules.

    The same Python version always gives the same text. Only ASCII docstrings count, so that the
    vocabulary stays small.
    """
    docstrings = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        docstrings += [text for text in _docstrings(path) if text.isascii()]
    return Corpus("\n\n".join(docstrings) + "\n", "docstrings of the Python standard library")


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
