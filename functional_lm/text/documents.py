"""Documents from files of any size, in pieces: .txt, .jsonl, .parquet, and the first two
compressed as .gz or .zst.

A .txt file, or one with an unknown name, is one document; a line of .jsonl and a row of .parquet is
one each. No file is read whole.
"""

import codecs
import gzip
import importlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..files import FileFormatError, known_encoding, parse_json, shown

__all__ = ["PIECE", "Piece", "files_in", "pieces"]

PIECE = 2**20
"""The most characters of a piece."""

BLOCK = 2**18
"""Bytes that are read at once."""

ZSTD_BLOCK = 2**12
"""Bytes that are decompressed at once: they may become 2¹⁵ times as many."""

MAX_LINE = 2**28
"""Bytes of a line of .jsonl."""

HELD_OUT = 10
"""One of so many documents is held out, where documents are."""

NAMES = re.compile(r"\.(txt|jsonl)(\.gz|\.zst)?$|\.parquet$", re.IGNORECASE)
"""The files of a folder that count."""

Progress = Callable[[int], object]


class Piece(NamedTuple):
    """A document, or a part of a long one.

    Attributes:
        text: at most `PIECE` characters.
        begins: whether a document begins here.
        held_out: whether the document is one of those to hold out. That depends on its first piece
            alone, so that equal documents are on one side.
    """

    text: str
    begins: bool
    held_out: bool


def files_in(path: str | Path) -> list[Path]:
    """Return a file, or those of a folder and its subfolders, sorted by path.

    Raises:
        FileFormatError: for a folder without any.
        OSError: if there is nothing.
    """
    path = Path(path)
    if not path.is_dir():
        path.stat()
        return [path]
    found = [file for file in path.rglob("*") if NAMES.search(file.name) and file.is_file()]
    if not found:
        raise FileFormatError(
            path, "must hold .txt, .jsonl or .parquet files: it has none; pass another folder"
        )
    return sorted(found)


def pieces(
    path: Path,
    *,
    field: str = "text",
    encoding: str = "utf-8",
    progress: Progress = lambda offset: None,
) -> Iterator[Piece]:
    """Yield the documents of a file in pieces.

    Args:
        path: of the file; its name says what it holds.
        field: of the objects of .jsonl, or the column of .parquet, with the text.
        encoding: of a plain text.
        progress: called with the bytes of the file that have been read.

    Raises:
        FileFormatError: naming the file, and the line, row or offset at fault.
        ImportError: if zstandard or pyarrow is missing.
        OSError: if it cannot be read.
    """
    name = path.name.lower()
    documents: Iterable[Iterable[str]]
    if name.endswith(".parquet"):
        documents = ([text] for text in _parquet(path, field, progress))
    elif re.search(r"\.jsonl(\.gz|\.zst)?$", name):
        documents = ([text] for text in _lines(path, field, _blocks(path, progress)))
    else:
        documents = [_decoded(path, encoding, _blocks(path, progress))]
    for parts in documents:
        begins, held_out = True, False
        for part in _cut(parts):
            if begins:
                held_out = zlib.crc32(part.encode()) % HELD_OUT == 0
            yield Piece(part, begins, held_out)
            begins = False


def _cut(parts: Iterable[str]) -> Iterator[str]:
    """Yield a text in pieces, cut in front of a space behind a word, where there is one.

    There a word of a tokenizer ends, too.
    """
    rest = ""
    for part in parts:
        rest, start = rest + part, 0
        while len(rest) - start > PIECE:
            low, high = start + PIECE - PIECE // 8, start + PIECE
            words = re.match(r".*\w(?=\s)", rest[low:high], re.DOTALL)
            end = low + words.end() if words else high
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _blocks(path: Path, progress: Progress) -> Iterator[bytes]:
    """Yield the content of a file, decompressed."""
    with path.open("rb") as file:
        try:
            for block in _decompressed(path, file):
                progress(file.tell())
                yield block
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise FileFormatError(
                path,
                f"is not whole: {error} (about offset {file.tell():,}); restore it from a copy",
            ) from None


def _decompressed(path: Path, file: BinaryIO) -> Iterator[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".zst":
        yield from _zstd(file)
        return
    reader: Any = gzip.GzipFile(fileobj=file) if suffix == ".gz" else file
    while block := reader.read(BLOCK):
        yield block


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of all frames; unlike a stream reader this notices a missing end."""
    zstandard = _needed("zstandard", ".zst")
    frame, fed, at = zstandard.ZstdDecompressor().decompressobj(), False, 0
    try:
        while block := file.read(ZSTD_BLOCK):
            while block:
                data, fed = frame.decompress(block), True
                if data:
                    yield data
                block = b""
                if frame.eof:
                    block, fed = frame.unused_data, False
                    frame = zstandard.ZstdDecompressor().decompressobj()
            at = file.tell()
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if fed:
        raise EOFError(f"its last frame has no end, after {at:,} bytes")


def _decoded(path: Path, encoding: str, blocks: Iterator[bytes]) -> Iterator[str]:
    """Yield a plain text without its byte order mark."""
    codec = known_encoding(encoding)
    decoder = codecs.getincrementaldecoder("utf-8" if codec == "utf-8-sig" else codec)()
    read, first = 0, True
    for block in _with_end(blocks):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise FileFormatError(
                path,
                f"must be {encoding.upper()}: it has the byte 0x{bad:02x} at offset "
                f"{read - pending + error.start:,}; correct it, or convert the file",
            ) from None
        read += len(block)
        if text:
            yield text.removeprefix("\ufeff") if first else text
            first = False


def _with_end(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks, and an empty one at the end."""
    yield from blocks
    yield b""


def _lines(path: Path, field: str, blocks: Iterator[bytes]) -> Iterator[str]:
    """Yield the text of each line of .jsonl that is not blank."""
    rest, number = bytearray(), 0
    for block in _with_end(blocks):
        rest += block
        if block and b"\n" not in block:
            if len(rest) > MAX_LINE:
                raise FileFormatError(
                    path, f"has more than {MAX_LINE:,} bytes in line {number + 1:,}; divide it"
                )
            continue
        *lines, last = bytes(rest).split(b"\n")
        for line in lines if block else [*lines, last]:
            number += 1
            if line.strip():
                yield _text_of(line, field, f"{path}, line {number:,},")
        rest = bytearray(last)


def _text_of(line: bytes, field: str, where: str) -> str:
    value = parse_json(line, where)
    text = value.get(field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        names = ", ".join(map(shown, value)) if isinstance(value, dict) else type(value).__name__
        raise FileFormatError(
            where,
            f"must be an object with a text in {field!r}: got {names[:200] or 'no field'}; "
            "correct it, or name another field",
        )
    return text


def _parquet(path: Path, field: str, progress: Progress) -> Iterator[str]:
    """Yield the text of each row that has one."""
    arrow, parquet = _needed("pyarrow", ".parquet"), _needed("pyarrow.parquet", ".parquet")
    size, row = path.stat().st_size, 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=BLOCK) as file:
            types = {column.name: column.type for column in file.schema_arrow}
            strings = (arrow.string(), arrow.large_string())
            if types.get(field) not in strings:
                known = ", ".join(f"{name} ({kind})" for name, kind in types.items())
                raise FileFormatError(
                    path,
                    f"must have a column {field!r} of strings: got {known[:200] or 'none'}; name "
                    "another field",
                )
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(256, columns=[field], use_threads=False):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if text is not None:
                        yield text
                progress(size * row // rows)
    except (arrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = " ".join(str(error).split())[:300]
        raise FileFormatError(
            path, f"is not whole after row {row:,}: {reason}; restore it from a copy"
        ) from None


def _needed(module: str, suffix: str) -> Any:
    """Import an optional package, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{suffix} files need {module.partition('.')[0]}: {error}; "
            "run pip install 'functional-lm[corpora]'"
        ) from None
