"""Files that appear whole or not at all, and readers that trust no file.

Whatever a file holds, reading it returns a value or raises `FileFormatError`: no content can crash,
hang or exhaust the memory.
"""

import codecs
import contextlib
import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

MAX_BYTES = 16 * 2**20
"""The longest JSON; parsed, it takes at most some hundred MiB."""
MAX_TOML = 2**20  # its parser takes seconds for a MiB
MAX_TEXT = 2**30
MAX_DEPTH = 200
HUGE = 10**300
MAX_DOTS = 200
"""In a line of TOML, whose parser takes the square of a dotted key's length."""

LONGEST = 80
"""Characters of a value that an error shows."""


class FileFormatError(ValueError):
    """A file does not hold what it should.

    Attributes:
        path: the file, or what else names the content.
        reason: what is wrong and how to fix it; path and reason make a sentence.

    >>> print(FileFormatError("a.json", "is empty; pass another"))
    a.json is empty; pass another
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)  # so that pickle and copy can rebuild it
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def shown(value: object) -> str:
    """Return the start of a value's repr: a value from a file may be any length."""
    text = repr(value[:LONGEST] if isinstance(value, str) else value)
    cut = len(text) > LONGEST + 2 or (isinstance(value, str) and len(value) > LONGEST)
    return text[:LONGEST] + "..." if cut else text


# Reading.


def read_bytes(path: str | Path, *, max_bytes: float = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        FileFormatError: for a longer file, or a pipe or a device, which might never end.
        OSError: if it cannot be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(path, "is a pipe or a device; write its content to a file first")
        size = status.st_size
        if size > max_bytes:
            raise FileFormatError(
                path, f"must have at most {max_bytes:,} bytes: got {size:,}; is it another file?"
            )
        return file.read(size)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_json(path: str | Path) -> Any:
    """Return the value in a JSON file; see `parse_json`.

    Raises:
        FileFormatError: naming the file and what is wrong.
        OSError: if it cannot be read.
    """
    return parse_json(read_bytes(path), path)


def parse_json(content: bytes | str, path: str | Path) -> Any:
    """Return the value of a JSON text in UTF-8, which may start with a byte order mark.

    Args:
        content: the text.
        path: what an error names.

    Raises:
        FileFormatError: if it is not JSON, has a name twice, NaN or an infinity, or nests too deep.
    """

    def parse() -> Any:
        text = content if isinstance(content, str) else content.decode()
        text = text.removeprefix("\ufeff")
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_distinct)
        if "\\u" in text:  # an escape can bring half of a surrogate pair, which nobody could print
            json.dumps(value, ensure_ascii=False).encode()
        return value

    return _parsed(parse, "JSON", path, "restore it from a copy")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        FileFormatError: if it is not TOML in UTF-8, or nests too deep.
        OSError: if it cannot be read.
    """
    data = read_bytes(path, max_bytes=MAX_TOML)

    def parse() -> Any:
        if any(line.count(b".") > MAX_DOTS for line in data.splitlines()):
            raise ValueError(f"a line has more than {MAX_DOTS} dots")
        return tomllib.loads(data.decode().removeprefix("\ufeff"))

    return _parsed(parse, "TOML", path, "let its name end in .json")


def _parsed(parse: Callable[[], Any], form: str, path: str | Path, remedy: str) -> Any:
    """Return what a parser returns, or raise FileFormatError for whatever it raises."""
    try:
        value = parse()
        level, depth = [value], 0
        while level:
            if any(type(node) is int and abs(node) >= HUGE for node in level):
                raise ValueError("it has an integer beyond the range of a float")
            inner = [node for node in level if isinstance(node, (dict, list))]
            level = [v for n in inner for v in (n.values() if isinstance(n, dict) else n)]
            depth += 1
            if depth > MAX_DEPTH:
                raise RecursionError
        return value
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        fault = f"it has the byte 0x{byte:02x} at offset {error.start}, which is not UTF-8"
    except RecursionError:
        fault = f"it nests deeper than {MAX_DEPTH} levels"
    except ValueError as error:  # of both parsers, and of an integer of thousands of digits
        fault = str(error)
    raise FileFormatError(
        path, f"must hold {form}: {fault[:300]}; correct it, or {remedy}"
    ) from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"an object has the name {shown(name)} twice")
        content[name] = value
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


class Tensors(NamedTuple):
    """What a safetensors file holds."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def read_tensors(path: str | Path) -> Tensors:
    """Return the arrays and the metadata of a safetensors file.

    The library checks that names, shapes and sizes fit the file; the format has no checksums.

    Raises:
        FileFormatError: naming the file and what is wrong.
        OSError: if it cannot be read.
    """
    from safetensors import SafetensorError, deserialize

    data = read_bytes(path, max_bytes=float("inf"))
    try:
        entries = deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        del data
        arrays = {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries
        }
    except KeyError as error:
        reason = f"has the dtype {shown(error.args[0])}, which NumPy lacks; convert it"
        raise FileFormatError(path, reason) from None
    except (SafetensorError, ValueError) as error:
        reason = f"is not a whole safetensors file: {str(error)[:300]}; restore it from a copy"
        raise FileFormatError(path, reason) from None
    return Tensors(arrays, header.get("__metadata__") or {})


_DTYPES = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IUF" for size in (1, 2, 4, 8)}
_DTYPES |= {"BOOL": "?"}
del _DTYPES["F8"]


def read_text(
    path: str | Path,
    *,
    encoding: str = "utf-8",
    note: Callable[[str], None] = lambda message: None,
) -> str:
    """Return the text of a file without its byte order mark; line ends stay as they are.

    Args:
        path: at most 1 GiB.
        encoding: any that Python knows.
        note: called with a sentence for each oddity that is no error.

    Raises:
        FileFormatError: if the file is empty, too long, or not in that encoding; with the offset of
            the first bad byte, and an encoding in which it can be read.
        OSError: if it cannot be read.
        TypeError: if the encoding is not a string.
        ValueError: for an unknown encoding.
    """
    codec = known_encoding(encoding)
    data = read_bytes(path, max_bytes=MAX_TEXT)
    try:
        # A decoder that skips the mark itself would count offsets from behind it.
        text = data.decode("utf-8" if codec == "utf-8-sig" else codec)
    except UnicodeDecodeError as error:
        raise FileFormatError(
            path,
            f"must be {encoding.upper()}: it has the byte 0x{data[error.start]:02x} at offset "
            f"{error.start}; {_remedy(data, codec)}",
        ) from None
    if text.startswith("\ufeff"):
        text = text[1:]
        note(f"{path} starts with a byte order mark, which is left out")
    if not text:
        raise FileFormatError(path, "is empty; a text file must hold text, pass another")
    if crlf := text.count("\r\n"):
        lines = f"{crlf:,} of {text.count(chr(10)):,} lines of {path}"
        note(f"{lines} end in CRLF, which the model learns as two characters")
    if lost := text.count("\ufffd"):
        characters = "replacement character" + "s" * (lost > 1)
        note(f"{lost:,} {characters} (U+FFFD) in {path}: its encoding was mistaken before")
    if codec in ("cp1252", "iso8859-1") and (twice := _UTF8_AS_LATIN.search(text)):
        note(f"{twice[0]!r} looks like UTF-8 read as {encoding.upper()} in {path}")
    return text


def _remedy(data: bytes, codec: str) -> str:
    """Return how to read a text that a codec cannot decode."""
    for mark, name in _MARKS.items():
        if data.startswith(mark) and codec != name:
            return f"it looks like {name}: try --encoding {name}"
    wrong = len(re.findall("[\udc80-\udcff]", data.decode("utf-8", "surrogateescape")))
    high = len(data) - len(data.decode("ascii", "ignore"))
    if codec == "utf-8" and 10 * wrong < high:
        bytes_ = "byte" if wrong == 1 else "bytes"
        return f"it has {wrong:,} such {bytes_}, and the rest is UTF-8: correct the file"
    pairs = re.findall(rb"[\x81-\xfe]{2,}", data)
    chinese = sum(map(len, pairs)) > 0.8 * high
    for name in ("gb18030", "cp1252") if chinese else ("cp1252",):
        with contextlib.suppress(UnicodeDecodeError):
            data.decode(name)
            return f"it can be read as {name}: try --encoding {name}, or convert it to UTF-8"
    return "pass its --encoding, or convert it to UTF-8"


_UTF8_AS_LATIN = re.compile("[\xc3\xc5][\x80-\xbf\u0152-\u02dc\u2013-\u2122]")
"""Two letters that are one of the Latin script in UTF-8, such as Ã¶ for ö."""

_NOT_TEXT = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Codecs of host names and Python source: slow, noisy, or with lone surrogates as a result."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def known_encoding(name: str) -> str:
    """Return the name of a text encoding as Python spells it.

    Raises:
        TypeError: if it is not a string.
        ValueError: if Python has no such encoding, or not for text.
    """
    if not isinstance(name, str):
        raise TypeError(f"encoding must be a string: got {shown(name)}; try 'utf-8'")
    with contextlib.suppress(LookupError, ValueError):
        codec = codecs.lookup(name).name if name.isascii() else name
        "".encode(codec)  # refuses codecs between bytes and bytes
        if codec not in _NOT_TEXT:
            return codec
    raise ValueError(
        f"encoding must be one of text that Python knows: got {shown(name)}; "
        "try utf-8, utf-16, latin-1 or cp1252"
    )


# Writing.

BytesLike: TypeAlias = bytes | bytearray | memoryview

PIECE = 2**20
"""The most bytes that one call of os.write gets."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_STALE = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)
_NO_FOLDER_SYNC = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EBADF, errno.ENOTSUP}
"""What a system answers that cannot open or sync a folder; any other error is one."""


def write_atomic(path: str | os.PathLike[str], data: BytesLike | str | Iterable[BytesLike]) -> None:
    """Write a file under a temporary name in the same folder, sync it, then rename it.

    A reader sees the old content or the new, never a part, also after a crash or a power cut.

    Args:
        path: of the file; its folder must exist.
        data: the content, or its pieces in order. Text is written as UTF-8. A piece may be any
            C-contiguous buffer, such as a NumPy array.

    Raises:
        OSError: naming the file, if it cannot be written; then the old file stays and nothing is
            left behind. If only the last sync fails, that of the folder, the new file is there.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name[:40]}.{os.urandom(8).hex()}.tmp"
    try:
        with _synced_after(path.parent):
            try:
                _write(temporary, _pieces(data))
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:  # os.write names no file, and nobody knows the temporary one
        if error.errno and str(error.filename) in ("None", str(temporary)):
            error.filename = str(path)
            del error.filename2
        raise


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    with _synced_after(folder):
        pass


def remove_stale(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files that a killed process left in a folder, and return them.

    Only names that `write_atomic` makes count. Hold the lock of the run in that folder: another
    process's unfinished file looks the same.

    Raises:
        OSError: if the folder cannot be listed, or a file not removed.
    """
    found = [path for path in sorted(Path(folder).iterdir()) if _STALE.fullmatch(path.name)]
    stale = [path for path in found if path.is_file() and not path.is_symlink()]
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def _pieces(data: BytesLike | str | Iterable[BytesLike]) -> Iterator[memoryview]:
    """Yield the content in pieces of at most `PIECE` bytes."""
    if isinstance(data, str):
        data = data.encode()
    for part in [data] if isinstance(data, (bytes, bytearray, memoryview)) else data:
        view = memoryview(part)
        if view.nbytes:  # an empty one of several dimensions cannot be cast
            view = view.cast("B")
            for start in range(0, len(view), PIECE):
                yield view[start : start + PIECE]


def _write(path: Path, pieces: Iterator[memoryview]) -> None:
    """Write a new file; it is on the disk when this returns."""
    descriptor = os.open(path, _FLAGS, 0o644)
    try:
        for piece in pieces:
            while piece:
                written = os.write(descriptor, piece)
                if not written:
                    raise OSError(errno.EIO, "the system writes nothing and gives no reason")
                piece = piece[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _synced_after(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Sync a folder at the end; it is opened first, so that what prevents it changes nothing."""
    descriptor = None
    if os.name != "nt":
        with _ignored(_NO_FOLDER_SYNC):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield
        if descriptor is not None:
            with _ignored(_NO_FOLDER_SYNC):
                os.fsync(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def _ignored(numbers: set[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
