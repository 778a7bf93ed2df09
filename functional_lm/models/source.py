"""The code of a custom model: its file, and those of its folder that it imports.

Each file is read once, and the bytes that run are those that `source` keeps for a copy of the
model. Compiled files beside it are never used.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..files import read_bytes

_known: dict[str, "Source"] = {}


def source(path: str | Path) -> "Source":
    """Return the code of a model by the path of its file, as it ran last."""
    return _known[os.path.realpath(path)]


def hold(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Have `run` use these files from now on, whatever the folder holds by then."""
    _known[os.path.realpath(path)] = Source(Path(path), files)


def release(path: str | Path) -> None:
    """Have `run` read the files of the folder again."""
    _known.pop(os.path.realpath(path), None)


def run(path: Path) -> ModuleType:
    """Run a model's file as Python's import would, with its folder on the path.

    Raises:
        ValueError: for whatever it raises.
    """
    key = os.path.realpath(path)
    if key not in _known or not _known[key].held:
        _known[key] = Source(path)
    try:
        return _known[key].run()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error


class Source(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A model's file and its neighbours.

    Attributes:
        files: the content of each file that ran, by its path from the folder, with slashes.
        held: whether those are the only ones there are.
    """

    def __init__(self, path: Path, files: Mapping[str, bytes] | None = None) -> None:
        self.path = Path(os.path.abspath(path))
        self.files = dict(files or {})
        self.held = files is not None

    def run(self) -> ModuleType:
        """Run the file, with modules of its own for its neighbours."""
        for name, module in list(sys.modules.items()):  # those of another folder may have its names
            if isinstance(getattr(module, "__loader__", None), Source):
                del sys.modules[name]
        spec = self._spec(f"functional_lm_model_{self.path.stem}", self.path.name)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        sys.meta_path.insert(0, self)
        try:
            self.exec_module(module)
        finally:
            sys.meta_path.remove(self)
        return module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> Any:
        """Find a neighbour, or a module of a package that is one."""
        parent = fullname.rpartition(".")[0]
        if parent and getattr(sys.modules.get(parent), "__loader__", None) is not self:
            return None
        stem = fullname.replace(".", "/")
        for file in (f"{stem}/__init__.py", f"{stem}.py"):
            if file in self.files if self.held else (self.path.parent / file).is_file():
                return self._spec(fullname, file)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of a module."""
        assert module.__file__ is not None
        path = Path(module.__file__)
        file = path.relative_to(self.path.parent).as_posix()
        if file not in self.files:
            self.files[file] = read_bytes(path)
        exec(compile(self.files[file], path, "exec", dont_inherit=True), module.__dict__)

    def _spec(self, name: str, file: str) -> importlib.machinery.ModuleSpec:
        path = self.path.parent / file
        inside = [str(path.parent)] if path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(
            name, path, loader=self, submodule_search_locations=inside
        )
        assert spec is not None
        return spec
