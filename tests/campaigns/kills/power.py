"""What a run asks of the file system, recorded, and what a cut of the power leaves of it.

Of a file, what is written after its last sync may be kept, dropped, zeroed or torn. Of a folder,
the names that were made, changed or removed after its last sync may be undone, the last ones first.
"""

import os
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from functional_lm.runs import folder as module_of_folder


class Log(NamedTuple):
    """A recording.

    Attributes:
        tree: what was there before: bytes, or the names in a folder, by number; 0 is the top.
        operations: in order; each begins with its name and the number of its file or folder.
        started: how many there were until the run had its name.
    """

    tree: dict[int, Any]
    operations: list[tuple]
    started: int


def recorded(fork: Callable[..., Any], arguments: list[str], folder: Path, out: Path) -> Log:
    """Return what a command asks of the file system in a folder."""
    recorder = Recorder(folder)
    process = fork(
        arguments,
        prepare=recorder.begin,
        finish=lambda: out.write_bytes(pickle.dumps(recorder.log)),
    )
    if process.wait() != 0:
        raise SystemExit("the recorded run does not end well")
    log = pickle.loads(out.read_bytes())
    out.unlink()
    return log


class Recorder:
    """Stands between a process and the functions of os that change files."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self.numbers: dict[int, int] = {}  # by inode
        self.log = Log({}, [], 0)
        self.lock = threading.RLock()
        self.real = {name: getattr(os, name) for name in PATCHED}
        self._add(self.folder)

    def begin(self) -> None:
        """Record from now on."""
        for name in PATCHED:
            setattr(os, name, self._locked(getattr(self, name)))
        exchange = module_of_folder._exchange
        module_of_folder._exchange = lambda one, other: self._exchange(exchange, one, other)

    def _locked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self.lock:
                return function(*arguments, **keywords)

        return call

    def _add(self, path: str) -> int:
        """Number a file or folder that is there already."""
        number = self.numbers[os.stat(path).st_ino] = len(self.numbers)
        if os.path.isdir(path):
            names = sorted(os.listdir(path))
            self.log.tree[number] = {name: self._add(os.path.join(path, name)) for name in names}
        else:
            self.log.tree[number] = Path(path).read_bytes()
        return number

    def _new(self, inode: int) -> int:
        self.numbers[inode] = number = max(self.numbers.values()) + 1
        return number

    def _at(self, path: Any, dir_fd: int | None = None) -> tuple[int, str] | None:
        """Return the number of a path's folder and the name in it, if it is recorded."""
        if isinstance(path, int):
            return None
        parent, name = os.path.split(os.fspath(path))
        where = os.fstat(dir_fd) if dir_fd is not None else os.stat(parent or ".")
        number = self.numbers.get(where.st_ino)
        return None if number is None else (number, name)

    def _say(self, *operation: Any) -> None:
        self.log.operations.append(operation)

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        new = flags & os.O_CREAT and not os.path.lexists(path)
        descriptor = self.real["open"](path, flags, mode, dir_fd=dir_fd)
        at = self._at(path, dir_fd)
        if at and new:
            self._say("name", at[0], at[1], self._new(os.fstat(descriptor).st_ino))
        elif at and flags & os.O_TRUNC and (number := self._number(descriptor)) is not None:
            self._say("truncate", number, 0)
        return descriptor

    def _number(self, descriptor: int) -> int | None:
        return self.numbers.get(os.fstat(descriptor).st_ino)

    def write(self, descriptor, data):
        if (number := self._number(descriptor)) is None:
            return self.real["write"](descriptor, data)
        done = self.real["write"](descriptor, data)
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        self._say("write", number, end - done, bytes(data[:done]))
        return done

    def ftruncate(self, descriptor, length):
        self.real["ftruncate"](descriptor, length)
        if (number := self._number(descriptor)) is not None:
            self._say("truncate", number, length)

    def fsync(self, descriptor):
        if (number := self._number(descriptor)) is not None:
            self._say("sync", number)

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        self.real["mkdir"](path, mode, dir_fd=dir_fd)
        if at := self._at(path, dir_fd):
            number = self._new(os.stat(path).st_ino)
            self._say("folder", number)
            self._say("name", at[0], at[1], number)

    def _remove(self, call: str, path: Any, dir_fd: int | None) -> None:
        at, status = self._at(path, dir_fd), os.lstat(path, dir_fd=dir_fd)
        self.real[call](path, dir_fd=dir_fd)
        if at:
            self._say("name", at[0], at[1], None)
            if status.st_nlink == 1 or call == "rmdir":
                self.numbers[-len(self.log.operations)] = self.numbers.pop(status.st_ino)

    def unlink(self, path, *, dir_fd=None):
        self._remove("unlink", path, dir_fd)

    def rmdir(self, path, *, dir_fd=None):
        self._remove("rmdir", path, dir_fd)

    def rename(self, one, other, *, src_dir_fd=None, dst_dir_fd=None):
        self._renamed("rename", one, other)

    def replace(self, one, other, *, src_dir_fd=None, dst_dir_fd=None):
        self._renamed("replace", one, other)

    def _renamed(self, call: str, one: Any, other: Any) -> None:
        number = self.numbers.get(os.lstat(one).st_ino)
        before = os.lstat(other).st_ino if os.path.lexists(other) else None
        self.real[call](one, other)
        at, to = self._at(one), self._at(other)
        if at and to:
            assert at[0] == to[0], "a rename stays in its folder"
            self._say("rename", at[0], at[1], to[1], number)
            if before is not None:
                self.numbers[-len(self.log.operations)] = self.numbers.pop(before)
            if os.path.isdir(other):
                self.log = self.log._replace(started=len(self.log.operations))

    def _exchange(self, exchange: Callable[..., bool], one: Path, other: Path) -> bool:
        with self.lock:
            numbers = [self.numbers[os.stat(path).st_ino] for path in (one, other)]
            done = exchange(one, other)
            if done:
                (folder, name), (_, second) = self._at(one), self._at(other)
                self._say("exchange", folder, name, second, *numbers)
                self.log = self.log._replace(started=len(self.log.operations))
            return done


PATCHED = ("open", "write", "ftruncate", "fsync", "mkdir", "unlink", "rmdir", "rename", "replace")


def after_cut(log: Log, end: int, folder: Path, draw: random.Random) -> int:
    """Make a folder as it is after a cut of the power at an operation.

    Returns:
        The newest step whose checkpoint had been saved by then, -1 if there was none.
    """
    operations = log.operations[:end]
    synced: dict[int, int] = {}  # up to which operation
    for i, (kind, number, *_) in enumerate(operations):
        if kind == "sync":
            synced[number] = i
    content: dict[int, Any] = {}
    for number, value in log.tree.items():
        content[number] = dict(value) if isinstance(value, dict) else bytearray(value)
    lost: set[int] = set()  # folders whose later changes are undone
    for i, (kind, number, *rest) in enumerate(operations):
        durable = i <= synced.get(number, -1)
        if kind in ("write", "truncate"):
            data = content.setdefault(number, bytearray())
            fate = "kept" if durable else draw.choice(("kept", "dropped", "zeroed", "torn"))
            if fate == "dropped":
                continue
            if kind == "truncate":
                del data[rest[0] :]
                continue
            start, piece = rest
            if fate == "zeroed":
                piece = bytes(len(piece))
            elif fate == "torn":
                piece = piece[: draw.randrange(len(piece) + 1)]
            data.extend(bytes(max(start - len(data), 0)))
            data[start : start + len(piece)] = piece
        elif kind == "folder":
            content[number] = {}
        elif kind != "sync":
            if not durable and draw.random() < 0.3:
                lost.add(number)
            if number not in lost or durable:
                _change(content[number], kind, rest)
    _write(content, 0, folder)
    return _saved(log, operations)


def _change(names: dict[str, int], kind: str, rest: list[Any]) -> None:
    if kind == "name":
        if rest[1] is None:
            names.pop(rest[0], None)
        else:
            names[rest[0]] = rest[1]
    elif kind == "rename":
        names.pop(rest[0], None)
        names[rest[1]] = rest[2]
    elif kind == "exchange":
        names[rest[0]], names[rest[1]] = rest[3], rest[2]


def _write(content: dict[int, Any], number: int, path: Path) -> None:
    for name, inner in content.get(number, {}).items():
        inside = path / name
        if inside.exists() and number == 0 and not name.lstrip(".").startswith("victim"):
            continue
        if isinstance(content.get(inner, b""), dict):
            inside.mkdir(exist_ok=True)
            _write(content, inner, inside)
        else:
            inside.write_bytes(bytes(content.get(inner, b"")))


def _saved(log: Log, operations: list[tuple]) -> int:
    """Return the newest step whose checkpoint was renamed, and its folder synced."""
    step, renamed = -1, dict[int, int]()
    if not any(operation[:2] == ("sync", 0) for operation in operations[log.started :]):
        return -1
    for kind, number, *rest in operations:
        if kind == "rename" and rest[1].startswith("step-"):
            renamed[number] = int(rest[1].removeprefix("step-").partition(".")[0])
        elif kind == "sync" and number in renamed:
            step = renamed[number]
    return step
