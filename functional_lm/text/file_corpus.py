"""Corpora of any size: files, encoded once into the cache, mapped into memory, mixed by weight.

The cache holds a folder for each encoding, named by a hash of the files' contents, of how they are
read, and of the tokenizer:

    KEY/tokens.bin, KEY/held_out.bin   integers of 16 or 32 bits
    KEY/encoding.json                  their type and sizes
    KEY.partial/                       the same, unfinished; an interrupted encoding resumes there
    KEY.lock                           whoever encodes holds it; others wait for the result
    contents.json                      the hashes of files by path, size and times

A folder gets its name once all of it is on the disk.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..contract import Array, expect_choice, expect_number
from ..files import FileFormatError, read_json, sync_folder, write_atomic
from ..speed.runtime import cores
from .batches import split
from .documents import PIECE, Piece, files_in, pieces
from .encoding_process import SEPARATOR, encode_all, token_type
from .mixture import Mixture
from .tokenizer import CharTokenizer, Tokenizer

__all__ = ["FileCorpus", "Part"]

STREAMS = ("tokens.bin", "held_out.bin")
RESULT_FILE, CONTENTS_FILE = "encoding.json", "contents.json"

SMALL = 2**23
"""Bytes of files that are encoded before other processes have started."""

SAVE_EVERY = 64
"""Parcels of a million characters between two states from which an encoding can resume."""

FRESH = 2 * 10**9
"""Nanoseconds. A file that was changed so recently may change again within the same time stamp."""

LEARNED = 2**27
"""Characters from which subwords are learned, at most."""

Progress = Callable[[str, float], object]


class Source(NamedTuple):
    """A file as it was when it was hashed."""

    path: Path
    status: list[int]  # its size, and what changes with its content
    sha256: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Files with one weight in a mixture.

    Attributes:
        path: a file, or a folder whose .txt, .jsonl and .parquet files count.
        weight: how often its windows are drawn, relative to other parts.

    >>> Part.parse("web=0.7").weight
    0.7
    """

    path: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        expect_number("the weight of data", self.weight, low=1e-9)

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read PATH or PATH=WEIGHT.

        Raises:
            ValueError: for a weight that is not a positive number.
        """
        path, equals, weight = text.rpartition("=")
        if not equals or Path(text).exists():
            return cls(Path(text))
        try:
            number = float(weight)
        except ValueError:
            raise ValueError(
                f"data must be PATH or PATH=WEIGHT: got {text!r}, where {weight!r} is no number; "
                "correct the path or the weight"
            ) from None
        return cls(Path(path), number)

    def __str__(self) -> str:
        return str(self.path) if self.weight == 1 else f"{self.path}={self.weight:g}"


@dataclasses.dataclass(frozen=True)
class FileCorpus:
    """Texts in files, which need not fit into memory.

    Attributes:
        parts: the files. Of several parts, each batch has windows by their weights.
        field: of .jsonl and .parquet, with the text.
        encoding: of plain texts.
        validation: what is held out of each part: its last tenth ("tail"), or a tenth of its
            documents ("documents").
        cache: the folder for encodings; one in the user's cache folder if not given.
        progress: called with what is done now, in words, and which share of it.
    """

    parts: tuple[Part, ...]
    field: str = "text"
    encoding: str = "utf-8"
    validation: str = "tail"
    cache: Path | None = None
    progress: Progress = lambda what, share: None

    def __post_init__(self) -> None:
        expect_choice("validation", self.validation, ("tail", "documents"))
        if not self.parts:
            raise ValueError("data must name at least one file or folder: got none; pass one")

    @functools.cached_property
    def sources(self) -> tuple[tuple[Source, ...], ...]:
        """The files of each part, with the hashes of their contents.

        Raises:
            FileFormatError: for a folder without files that count.
            OSError: if a file cannot be read.
        """
        files = [files_in(part.path) for part in self.parts]
        total = max(sum(path.stat().st_size for paths in files for path in paths), 1)
        known, read, found = _known_contents(self.folder), 0, []
        for paths in files:
            sources = []
            for path in paths:
                status, digest = _hashed(path, known)
                read += status[0]
                self.progress("hashing the text", read / total)
                sources.append(Source(path, status, digest))
            found.append(tuple(sources))
        with contextlib.suppress(OSError):  # it only saves time
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / CONTENTS_FILE, json.dumps(known))
        return tuple(found)

    @property
    def folder(self) -> Path:
        """The folder for encodings."""
        if self.cache is not None:
            return self.cache
        import platformdirs

        return platformdirs.user_cache_path("functional_lm") / "corpora"

    @property
    def source(self) -> str:
        """Where the text comes from, in words."""
        return ", ".join(map(str, self.parts))

    @functools.cached_property
    def sha256(self) -> str:
        """A hash of all contents, of how they are read, and of the weights."""
        weights = [part.weight for part in self.parts]
        return _hash([weights, [self._reading(sources) for sources in self.sources]])

    @property
    def record(self) -> dict[str, Any]:
        """What a run notes of its text."""
        size = sum(one.status[0] for one in itertools.chain(*self.sources))
        return {"source": self.source, "bytes": size, "sha256": self.sha256}

    def pieces(
        self, sources: Iterable[Source] | None = None, what: str = "reading the text"
    ) -> Iterator[Piece]:
        """Yield the documents of all files, or of some, in pieces of at most `PIECE` characters.

        Raises:
            FileFormatError: naming the file, and the line, row or offset at fault.
            ImportError: if zstandard or pyarrow is missing.
            OSError: if a file cannot be read.
        """
        chosen = list(itertools.chain(*self.sources) if sources is None else sources)
        total, before = max(sum(one.status[0] for one in chosen), 1), 0
        for path, status, _ in chosen:

            def shown(offset: int, before: int = before) -> None:
                self.progress(what, (before + offset) / total)

            yield from pieces(path, field=self.field, encoding=self.encoding, progress=shown)
            before += status[0]

    def characters(self) -> CharTokenizer:
        """Return the tokenizer of all characters in the text, and of those between documents.

        Raises:
            FileFormatError, ImportError, OSError: as `pieces`.
        """
        seen = set(SEPARATOR)
        for piece in self.pieces(what="collecting characters"):
            seen.update(CharTokenizer.train(piece.text).characters)
        return CharTokenizer("".join(sorted(seen)))

    def training_texts(self) -> Iterator[str]:
        """Yield texts that are not held out, at most `LEARNED` characters, for a tokenizer.

        Raises:
            FileFormatError, ImportError, OSError: as `pieces`.
        """
        most = LEARNED // len(self.parts)
        for sources in self.sources:
            shares, taken = [0.0], 0

            def read(what: str, share: float, shares: list[float] = shares) -> None:
                shares.append(share)

            reading = dataclasses.replace(self, progress=read)
            for piece in reading.pieces(sources):
                before, now = shares[0], shares[-1]
                shares[:] = [now]
                self.progress("reading the text", now)
                rest = 1.0
                if self.validation == "tail" and now > before:
                    rest = min(max((0.9 - before) / (now - before), 0.0), 1.0)
                if taken >= most or not rest:
                    break
                if not piece.held_out:
                    yield piece.text[: int(rest * len(piece.text))]
                    taken += len(piece.text)

    def held_out_sizes(self, tokenizer: Tokenizer) -> None:
        """Return None: the cache holds tokens alone."""

    def encode(self, tokenizer: Tokenizer) -> tuple[Array | Mixture, Array]:
        """Return the tokens to train on, of several parts as a `Mixture`, and those held out.

        They are maps of files in the cache, which are made if they are not there. Those held out
        of several parts follow each other, in proportion to the weights, as many as there can be.

        Raises:
            FileFormatError: naming the file, and the line, row or offset at fault.
            ImportError: if zstandard or pyarrow is missing.
            OSError: if a file cannot be read, or the cache not written.
            ValueError: if the tokenizer cannot encode a text, or a file changes meanwhile.
        """
        keys = [_hash([self._reading(part), tokenizer.to_json()]) for part in self.sources]
        streams = []
        for key, sources in zip(keys, self.sources, strict=True):
            write = functools.partial(self._write, sources=sources, tokenizer=tokenizer)
            tokens, held_out = self._cached(key, write)
            streams.append(split(tokens) if self.validation == "tail" else (tokens, held_out))
        if len(streams) == 1:
            return streams[0]
        weights = tuple(part.weight for part in self.parts)
        mixture = Mixture(tuple(tokens for tokens, _ in streams), weights)
        size = min(len(one) / weight for (_, one), weight in zip(streams, weights, strict=True))
        shares = [one[: int(size * w)] for (_, one), w in zip(streams, weights, strict=True)]
        held_out, _ = self._cached(
            _hash([keys, weights]), functools.partial(_write_joined, streams=shares)
        )
        return mixture, held_out

    def _reading(self, sources: Iterable[Source]) -> list[Any]:
        """Return the contents of files and how they are read, for a hash."""
        kinds = ["".join(one.path.suffixes[-2:]).lower() for one in sources]
        contents = [one.sha256 for one in sources]
        return [kinds, contents, self.field, self.encoding, self.validation, PIECE]

    def _cached(self, key: str, write: Callable[[Path], object]) -> list[Array]:
        """Return the streams of an encoding; ``write`` makes them in a folder if need be."""
        place = self.folder / key
        if (found := _maps(place)) is not None:
            return found
        with self._locked(place):
            if (found := _maps(place)) is None:
                partial = place.with_suffix(".partial")
                try:
                    partial.mkdir(exist_ok=True)
                    write(partial)
                except ValueError:  # of a file or a text at fault: nothing could resume
                    shutil.rmtree(partial)
                    raise
                shutil.rmtree(place, ignore_errors=True)  # a damaged one
                partial.rename(place)
                sync_folder(self.folder)
                found = _maps(place)
        if found is None:
            raise OSError(f"cannot read the encoding in {place}: remove that folder")
        return found

    @contextlib.contextmanager
    def _locked(self, place: Path) -> Iterator[None]:
        import filelock

        place.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place.with_suffix(".lock"), thread_local=False)
        while True:
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0.5)
                break
            self.progress("waiting for another process, which encodes the text", 0.0)
        try:
            yield
        finally:
            lock.release()

    def _write(self, folder: Path, *, sources: Sequence[Source], tokenizer: Tokenizer) -> None:
        """Encode files into a folder, from where an interrupted encoding of them left off."""
        state = {
            "dtype": str(token_type(tokenizer)),
            "sources": [[str(path), *status] for path, status, _ in sources],
        }
        number, sizes = _resumable(folder, state)
        small = sum(status[0] for _, status, _ in sources) < SMALL
        read = self.pieces(sources, "encoding the text")
        if self.validation == "tail":
            read = (piece._replace(held_out=False) for piece in read)
        parcels = itertools.islice(_parcels(read), number, None)
        with _opened(folder, sizes) as files:
            for streams in encode_all(tokenizer, parcels, 1 if small else cores()):
                for file, stream in zip(files, streams, strict=True):
                    file.write(stream.data)
                number += 1
                if number % SAVE_EVERY == 0:
                    _save(folder, files, {**state, "parcels": number})
            _save(folder, files, {**state, "parcels": number})
        for path, status, _ in sources:
            if _status(path) != status:
                raise ValueError(f"{path} has changed while it was encoded; start again")


def _write_joined(folder: Path, *, streams: Sequence[Array]) -> None:
    """Write streams one after another, as one."""
    dtype = np.result_type(*streams)
    with _opened(folder, [0, 0]) as files:
        for stream in streams:
            for start in range(0, len(stream), PIECE):
                files[0].write(stream[start : start + PIECE].astype(dtype).data)
        _save(folder, files, {"dtype": str(dtype)})


@contextlib.contextmanager
def _opened(folder: Path, sizes: Sequence[int]) -> Iterator[Sequence[BinaryIO]]:
    """Open the files of the streams to append to them, cut to sizes."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("ab")) for name in STREAMS]
        for file, size in zip(files, sizes, strict=True):
            file.truncate(size)
        yield files


def _save(folder: Path, files: Iterable[BinaryIO], state: dict[str, Any]) -> None:
    """Put the streams on the disk, then what they are."""
    sizes = []
    for file in files:
        file.flush()
        os.fsync(file.fileno())
        sizes.append(os.fstat(file.fileno()).st_size)
    write_atomic(folder / RESULT_FILE, json.dumps({**state, "sizes": sizes}))


def _resumable(folder: Path, state: dict[str, Any]) -> tuple[int, list[int]]:
    """Return how many parcels are on the disk, and the sizes of their streams."""
    saved = _saved(folder)
    if saved is None or any(saved.get(name) != value for name, value in state.items()):
        return 0, [0, 0]
    return saved["parcels"], saved["sizes"]


def _saved(folder: Path) -> dict[str, Any] | None:
    """Return what an encoding says of itself, None if its streams are shorter than that."""
    with contextlib.suppress(OSError, FileFormatError, KeyError, TypeError):
        saved = read_json(folder / RESULT_FILE)
        sizes = [(folder / name).stat().st_size for name in STREAMS]
        known = saved["dtype"] in ("uint16", "uint32")
        if known and all(a >= b for a, b in zip(sizes, saved["sizes"], strict=True)):
            return saved
    return None


def _maps(place: Path) -> list[Array] | None:
    """Return the streams of a whole encoding, or None if there is none."""
    if (saved := _saved(place)) is None:
        return None
    dtype = np.dtype(saved["dtype"])
    return [
        np.memmap(place / name, dtype, "r", shape=(size // dtype.itemsize,))
        if size  # nothing cannot be mapped
        else np.empty(0, dtype)
        for name, size in zip(STREAMS, saved["sizes"], strict=True)
    ]


def _parcels(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in lists of about `PIECE` characters; nothing ends before the first document."""
    parcel: list[Piece] = []
    begun, size = {False: False, True: False}, 0
    for piece in pieces:
        parcel.append(piece._replace(begins=piece.begins and begun[piece.held_out]))
        begun[piece.held_out] = True
        size += len(piece.text)
        if size >= PIECE:
            yield parcel
            parcel, size = [], 0
    if parcel:
        yield parcel


def _status(path: Path) -> list[int]:
    """Return the size of a file, and what changes with its content."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _hashed(path: Path, known: dict[str, Any]) -> tuple[list[int], str]:
    """Return the status and the hash of a file; one that is known has not changed since."""
    name, status = str(path.resolve()), _status(path)
    match known.get(name):
        case [before, str(digest)] if before == status:
            return status, digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known.pop(name, None)
    if time.time_ns() - max(status[1:3]) > FRESH and _status(path) == status:
        known[name] = [status, digest]
    return status, digest


def _known_contents(folder: Path) -> dict[str, Any]:
    """Return status and hash of files that were hashed before, by path."""
    with contextlib.suppress(OSError, FileFormatError):
        known = read_json(folder / CONTENTS_FILE)
        return known if isinstance(known, dict) else {}
    return {}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
