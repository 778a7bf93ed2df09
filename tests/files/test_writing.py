import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_lm.files import remove_stale, write_atomic, writing

OLD, NEW = b"old" * 1000, bytes(range(256)) * (10 * 1024)  # the new one takes three pieces
CALLS = ("open", "write", "fsync", "replace")
FOLDER_SYNC = os.name != "nt"


@pytest.fixture
def impatient(monkeypatch):
    """Do not wait for the disk, where that is not what is tested."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_text_bytes_and_pieces(tmp_path):
    path = tmp_path / "a"
    write_atomic(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.name == "nt" or oct(path.stat().st_mode & ~0o022)[-3:] == "644"
    array = np.arange(6.0).reshape(2, 3)
    write_atomic(path, [b"a", bytearray(b"bc"), array, np.zeros((0, 3)), np.float64(1), b""])
    assert path.read_bytes() == b"abc" + array.tobytes() + np.float64(1).tobytes()
    write_atomic(path, memoryview(b"view"))
    assert path.read_bytes() == b"view"
    write_atomic(path, [])
    assert path.read_bytes() == b""


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=20)), st.integers(1, 5), st.integers(1, 5))
def test_pieces_and_short_writes_make_the_same_file(parts, piece, most):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        write = os.write
        patch.setattr(writing, "PIECE", piece)
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


def points() -> list[tuple[str, int]]:
    """Return each call that writing NEW makes, by its name and number."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        write_atomic(Path(folder) / "a", NEW)
    return [(name, i + 1) for name, count in Counter(calls.made).items() for i in range(count)]


POINTS = points()


def raising(error):
    def act(function, *arguments, **keywords):
        raise error

    return act


@pytest.mark.usefixtures("impatient")
def test_the_content_is_on_the_disk_before_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    write_atomic(tmp_path / "a", NEW)
    made = ["open"] * (1 + FOLDER_SYNC) + ["write"] * 3 + ["fsync", "replace"]
    assert calls.made == made + ["fsync"] * FOLDER_SYNC


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EINVAL, None])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_fault_at_any_call_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, point, error):
    path = tmp_path / "a"
    path.write_bytes(OLD)
    fault = KeyboardInterrupt() if error is None else OSError(error, os.strerror(error))
    of_folder = FOLDER_SYNC and point in (("open", 1), ("fsync", 2))
    with monkeypatch.context() as patch:
        Calls(patch, point, raising(fault))
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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("point", [p for p in POINTS if p[0] == "write"], ids=str)
@pytest.mark.parametrize("most", [0.5, 1])
def test_a_short_write_goes_on(tmp_path, monkeypatch, point, most):
    def short(function, descriptor, data):
        return function(descriptor, data[: most if most == 1 else int(most * len(data))])

    with monkeypatch.context() as patch:
        Calls(patch, point, short)
        write_atomic(tmp_path / "a", NEW)
    assert (tmp_path / "a").read_bytes() == NEW


def test_a_system_that_writes_nothing_is_no_endless_loop(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: 0)
        with pytest.raises(OSError, match="writes nothing"):
            write_atomic(tmp_path / "a", NEW)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_pieces_themselves_is_passed_on(tmp_path):
    def pieces():
        yield NEW
        (tmp_path / "missing").read_bytes()

    with pytest.raises(FileNotFoundError, match=r"missing'$"):
        write_atomic(tmp_path / "a", pieces())
    assert not list(tmp_path.iterdir())


def test_a_long_name_and_a_missing_folder(tmp_path):
    write_atomic(tmp_path / ("é" * 120), b"a")
    with pytest.raises(FileNotFoundError, match="missing"):
        write_atomic(tmp_path / "missing" / "a", b"")


KILLED = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("writing", sys.argv[1])
writing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writing)
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
writing.write_atomic(sys.argv[2], bytes(range(256)) * (10 * 1024))
"""


def child(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, writing.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_process_killed_at_any_call_leaves_what_remove_stale_removes(tmp_path, point, when):
    path = tmp_path / "a"
    path.write_bytes(OLD)
    assert child(KILLED, path, *point, when).returncode == 9
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
    with pytest.raises(FileNotFoundError):
        remove_stale(tmp_path / "missing")


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace a file that is read")
def test_a_reader_sees_one_of_the_two(tmp_path):
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

FAILING = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("writing", sys.argv[1])
writing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writing)
{before}
try:
    writing.write_atomic(sys.argv[2], bytes(range(256)) * (10 * 1024))
except OSError as error:
    print(error)
"""


def test_a_limit_of_the_size_of_files(tmp_path):
    pytest.importorskip("resource", reason="Windows has no such limit")
    path = tmp_path / "a"
    path.write_bytes(OLD)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500000, 1500000))"
    done = child(FAILING.format(before=limit), path)
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
        done = child(FAILING.format(before=other), path)
        assert done.stdout == f"[Errno {errno.EACCES}] Permission denied: '{path}'\n", done.stderr
        assert list(folder.iterdir()) == [path]
        assert path.read_bytes() == OLD
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture
def full_disk(tmp_path):
    """A file system of two MiB in memory, or skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(full_disk):
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
