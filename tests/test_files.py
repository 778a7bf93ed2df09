import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from functional_lm import files
from functional_lm.files import (
    FileFormatError,
    known_encoding,
    parse_json,
    read_json,
    read_tensors,
    read_text,
    read_toml,
    remove_stale,
    write_atomic,
)
from functional_lm.text import CharTokenizer, load_tokenizer

READERS = {"json": read_json, "toml": read_toml, "text": read_text, "tensors": read_tensors}


def tensors(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


BAD = [
    ("json", b"", "must hold JSON: Expecting value"),
    ("json", b'{"a": 1', "must hold JSON"),
    ("json", b"1 2", "Extra data"),
    ("json", b'{"a": "\xff"}', "the byte 0xff at offset 7, which is not UTF-8"),
    ("json", b'"\xed\xa0\x80"', "the byte 0xed at offset 1"),
    ("json", '{"a": 1}'.encode("utf-16"), "the byte 0xff at offset 0"),
    ("json", b'{"a": NaN}', "JSON has no NaN"),
    ("json", b"[-Infinity]", "JSON has no -Infinity"),
    ("json", b'[{"b": 1, "a": 2, "\\u0061": 1}]', "the name 'a' twice"),
    ("json", b'"\\ud800"', "surrogates not allowed"),
    ("json", b'{"a": [-1' + b"0" * 300 + b"]}", "beyond the range of a float"),
    ("toml", b"a = 0x" + b"f" * 300, "beyond the range of a float"),
    ("json", b"9" * 5000, "Exceeds the limit"),
    ("json", b"[" * 201 + b"]" * 201, "deeper than 200 levels"),
    ("json", b"[" * 100_000, "deeper than 200 levels"),
    ("json", b" " * (2**24 + 1), "at most 16,777,216 bytes: got 16,777,217"),
    ("toml", b"a = ", "must hold TOML: Invalid value"),
    ("toml", b"a = 1\na = 2", "Cannot overwrite a value"),
    ("toml", b'a = "\xff"', "the byte 0xff at offset 5"),
    ("toml", b"a = " + b"[" * 5000, "deeper than 200 levels"),
    ("toml", b"\n".join(b"[" + b"a." * i + b"a]" for i in range(201)), "deeper than 200"),
    ("toml", b"a = " + b"9" * 5000, "Exceeds the limit"),
    ("toml", b".".join([b"a"] * 8000) + b" = 1", "more than 200 dots"),
    ("text", b"", "is empty"),
    ("text", "naïve".encode("latin-1"), "must be UTF-8: it has the byte 0xef at offset 2; it can"),
    ("text", "é".encode("utf-16"), "it looks like utf-16: try --encoding utf-16"),
    ("tensors", b"", "header too small"),
    ("tensors", b"\xff" * 20, "header too large"),
    ("tensors", tensors([]), "invalid"),
    ("tensors", tensors({"__metadata__": {"a": 1}}), "expected a string"),
    ("tensors", tensors({}, b"more"), "not fully covered"),
    ("tensors", tensors({"a": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}}), "BF16"),
    ("tensors", tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}), "whole"),
    ("tensors", tensors({"a": {"dtype": "I8", "shape": [0, 2**62, 8], "data_offsets": [0, 0]}}),
     "is not a whole safetensors file"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "content", "reason"), BAD)
def test_a_fault_names_the_file_the_reason_and_the_remedy(tmp_path, form, content, reason):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        READERS[form](path)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert ";" in caught.value.reason
    assert str(caught.value) == f"{path} {caught.value.reason}"
    assert len(caught.value.reason) < 500


@pytest.mark.parametrize("form", READERS)
def test_what_is_no_regular_file(tmp_path, form):
    with pytest.raises(FileNotFoundError):
        READERS[form](tmp_path / "missing")
    with pytest.raises(OSError, match=tmp_path.name):
        READERS[form](tmp_path)
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(FileFormatError, match="is a pipe or a device"):
                READERS[form](path)


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    tracemalloc.start()
    for form in ("json", "toml", "text"):
        with pytest.raises(FileFormatError, match=r"at most .* bytes: got 1,073,741,825"):
            READERS[form](path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


names = st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**299), 10**299)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
)


@settings(deadline=None)
@given(values)
def test_what_json_writes_comes_back(value):
    text = json.dumps(value)
    assert parse_json("\ufeff" + text, "a") == parse_json(text.encode(), "a") == value


def test_toml_comes_back(tmp_path):
    (tmp_path / "a").write_text('\ufefflr = 1e-3\n[b]\nc = ["d", 0x1F]\n', encoding="utf-8")
    assert read_toml(tmp_path / "a") == {"lr": 1e-3, "b": {"c": ["d", 31]}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030", "UTF8"])
def test_text_in_any_encoding(tmp_path, encoding):
    text = "Grüße, 世界 😀\r\n"
    (tmp_path / "a").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a", encoding=encoding) == text


@pytest.mark.parametrize("name", ["klingon", "", "base64", "rot13", "idna", "unicode-escape", "é"])
def test_what_is_no_encoding_of_text(name):
    with pytest.raises(ValueError, match="encoding must be one of text that Python knows"):
        known_encoding(name)
    with pytest.raises(TypeError, match="encoding must be a string: got 8"):
        known_encoding(8)


def test_tensors_of_all_dtypes_come_back(tmp_path):
    kinds = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
    arrays = {kind: np.arange(6).astype(kind).reshape(2, 3) for kind in kinds}
    arrays |= {"empty": np.zeros((0, 4)), "number": np.array(2.5)}
    (tmp_path / "a").write_bytes(save(arrays, {"é": "b"}))
    found, metadata = read_tensors(tmp_path / "a")
    assert metadata == {"é": "b"}
    assert found.keys() == arrays.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


# Every file that differs from a good one in one bit, or by its end, is read or refused.

FILES = {
    "json": ("a.json", b'{"a": [1.5e3, "\\u00e9", null], "b": {"c": -1}}', read_json),
    "toml": ("a.toml", b'lr = 1e-3\n[b]\nc = ["d", 0x1F]\n', read_toml),
    "text": ("a.txt", "é世😀\n".encode(), read_text),
    "tokenizer": ("a.json", CharTokenizer.train("hello é").to_json().encode(), load_tokenizer),
    "tensors": (
        "a.safetensors",
        save({"a.weight": np.ones((2, 3), np.float32), "b": np.array([True, False])}, {"c": "d"}),
        read_tensors,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_and_every_length_gives_a_value_or_the_one_error(tmp_path, name):
    file, content, reader = FILES[name]
    path = tmp_path / file

    def read(data):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            return reader(path)
        except FileFormatError as error:
            return error

    assert not isinstance(read(content), FileFormatError)
    refused = accepted = 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        result = read(flipped)
        refused += isinstance(result, FileFormatError)
        if not isinstance(result, FileFormatError):
            accepted += 1
            if name == "json":
                assert result == json.loads(flipped)
            if name == "tensors":
                expected = load(bytes(flipped))
                assert {k: v.tobytes() for k, v in result.arrays.items()} == {
                    k: v.tobytes() for k, v in expected.items()
                }
    assert min(refused, accepted) > 0
    cut = [isinstance(read(content[:n]), FileFormatError) for n in range(len(content))]
    assert all(cut) or name in ("toml", "text")  # cut between two lines it may still be one


# Writing.

OLD, NEW = b"old" * 1000, bytes(range(256)) * (10 * 1024)  # the new one takes three pieces
CALLS = ("open", "write", "fsync", "replace")
FOLDER_SYNC = os.name != "nt"


def test_text_bytes_and_pieces(tmp_path):
    path = tmp_path / ("é" * 120)
    array = np.arange(6.0).reshape(2, 3)
    for data, content in [
        ("é", "é".encode()),
        (b"new", b"new"),
        ([b"a", bytearray(b"bc"), array, np.zeros((0, 3)), b""], b"abc" + array.tobytes()),
        (memoryview(b"view"), b"view"),
        ([], b""),
    ]:
        write_atomic(path, data)
        assert path.read_bytes() == content
    assert os.name == "nt" or oct(path.stat().st_mode & ~0o022)[-3:] == "644"
    with pytest.raises(FileNotFoundError, match="missing"):
        write_atomic(tmp_path / "missing" / "a", b"")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=20)), st.integers(1, 5), st.integers(1, 5))
def test_pieces_and_short_writes_make_the_same_file(parts, piece, most):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        write = os.write
        patch.setattr(files, "PIECE", piece)
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:most]))
        write_atomic(Path(folder) / "a", iter(parts))
        assert (Path(folder) / "a").read_bytes() == b"".join(parts)


class Calls:
    """Stands in for the functions of os: counts their calls, and acts at one of them."""

    def __init__(self, patch, at=None, act=None):
        self.made: list[str] = []
        for name in CALLS:
            patch.setattr(os, name, self._replacement(name, getattr(os, name), at, act))

    def _replacement(self, name, function, at, act):
        def call(*arguments, **keywords):
            self.made.append(name)
            if at == (name, self.made.count(name)):
                return act(function, *arguments, **keywords)
            return function(*arguments, **keywords)

        return call


def calls_of_a_write() -> list[str]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        write_atomic(Path(folder) / "a", NEW)
    return calls.made


MADE = calls_of_a_write()
POINTS = [(name, i + 1) for name, count in Counter(MADE).items() for i in range(count)]


def test_the_content_is_on_the_disk_before_its_name_and_the_name_after():
    made = ["open"] * (1 + FOLDER_SYNC) + ["write"] * 3 + ["fsync", "replace"]
    assert [*made, *["fsync"] * FOLDER_SYNC] == MADE


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EINVAL, None])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_fault_at_any_call_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, point, error):
    def fail(function, *arguments, **keywords):
        raise KeyboardInterrupt if error is None else OSError(error, os.strerror(error))

    path = tmp_path / "a"
    path.write_bytes(OLD)
    of_folder = FOLDER_SYNC and point in (("open", 1), ("fsync", 2))
    with monkeypatch.context() as patch:
        Calls(patch, point, fail)
        if of_folder and error in (errno.EACCES, errno.EINVAL):  # it cannot be synced here
            write_atomic(path, NEW)
        elif error is None:
            with pytest.raises(KeyboardInterrupt):
                write_atomic(path, NEW)
        else:
            with pytest.raises(OSError, match=r"a'$") as caught:
                write_atomic(path, NEW)
            assert caught.value.errno == error
            assert caught.value.filename in (str(path), tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    renamed = of_folder and (point[0] == "fsync" or error in (errno.EACCES, errno.EINVAL))
    assert path.read_bytes() == (NEW if renamed else OLD)


def test_a_system_that_writes_nothing_is_no_endless_loop(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: 0)
        with pytest.raises(OSError, match="writes nothing"):
            write_atomic(tmp_path / "a", NEW)
    assert not list(tmp_path.iterdir())


CHILD = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
{before}
try:
    files.write_atomic(sys.argv[2], bytes(range(256)) * (10 * 1024))
except OSError as error:
    print(error)
"""
KILL = """
name, number, after = sys.argv[3], int(sys.argv[4]), sys.argv[5] == "after"
os.fsync = lambda descriptor: None  # the disk outlives the process
function, count = getattr(os, name), 0
def call(*arguments, **keywords):
    global count
    count += 1
    if count == number and not after:
        os._exit(9)
    value = function(*arguments, **keywords)
    if count == number:
        os._exit(9)
    return value
setattr(os, name, call)
"""


def child(before: str, *arguments: object) -> subprocess.CompletedProcess:
    code = CHILD.format(before=before)
    command = [sys.executable, "-c", code, files.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_process_killed_at_any_call_leaves_what_remove_stale_removes(tmp_path, point, when):
    path = tmp_path / "a"
    path.write_bytes(OLD)
    assert child(KILL, path, *point, when).returncode == 9
    renamed = point == ("fsync", 2) or (point, when) == (("replace", 1), "after")
    assert path.read_bytes() == (NEW if renamed else OLD)
    left = set(tmp_path.iterdir()) - {path}
    assert len(left) <= 1
    if point[0] in ("write", "replace") and not renamed:
        assert left
    assert set(remove_stale(tmp_path)) == left
    assert list(tmp_path.iterdir()) == [path]


def test_remove_stale_takes_its_own_names_only(tmp_path):
    kept = {"a.tmp", ".a.tmp", ".a.0123456789ABCDEF.tmp", "a.0123456789abcdef.tmp", ".a.01.tmp"}
    for name in (*kept, ".a.0123456789abcdef.tmp", ".a\n.b.fedcba9876543210.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".folder.0123456789abcdef.tmp").mkdir()
    kept.add(".folder.0123456789abcdef.tmp")
    if os.name != "nt":
        (tmp_path / ".link.0123456789abcdef.tmp").symlink_to(tmp_path / "a.tmp")
        kept.add(".link.0123456789abcdef.tmp")
    assert len(remove_stale(tmp_path)) == 2
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace a file that is read")
def test_a_reader_sees_one_of_the_two(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    path = tmp_path / "a"
    contents = [bytes([i]) * 100_000 for i in range(2)]
    write_atomic(path, contents[0])
    seen, done = Counter(), threading.Event()

    def read():
        while not done.is_set():
            seen[path.read_bytes()] += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for i in range(50):
            write_atomic(path, contents[i % 2])
    finally:
        done.set()
        thread.join()
    assert set(seen) <= set(contents)


# Faults of the system itself, not of a stand-in.


def test_a_limit_of_the_size_of_files(tmp_path):
    pytest.importorskip("resource", reason="Windows has no such limit")
    path = tmp_path / "a"
    path.write_bytes(OLD)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500000, 1500000))"
    done = child(limit, path)
    assert done.stdout == f"[Errno {errno.EFBIG}] File too large: '{path}'\n", done.stderr
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == OLD


@pytest.mark.skipif(os.name == "nt", reason="Windows has no folders without the right to write")
def test_a_folder_that_nobody_may_write_to():
    folder = Path(tempfile.mkdtemp())  # root's tmp_path is closed to the user nobody
    path = folder / "a"
    try:
        path.write_bytes(OLD)
        folder.chmod(0o555)
        other = "os.setuid(65534)" if os.geteuid() == 0 else ""  # root may write anywhere
        done = child(other, path)
        assert done.stdout == f"[Errno {errno.EACCES}] Permission denied: '{path}'\n", done.stderr
        assert list(folder.iterdir()) == [path]
        assert path.read_bytes() == OLD
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_full_disk(small_disk):
    full_disk = small_disk("2m")
    path = full_disk / "a"
    write_atomic(path, OLD)
    for _ in range(3):  # nothing is left that would fill it further
        with pytest.raises(OSError, match=r"No space left on device: .*a'") as caught:
            write_atomic(path, NEW)
        assert caught.value.errno == errno.ENOSPC
        assert list(full_disk.iterdir()) == [path]
        assert path.read_bytes() == OLD
    write_atomic(path, OLD + OLD)
    assert path.read_bytes() == OLD + OLD
