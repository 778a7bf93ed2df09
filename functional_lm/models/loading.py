"""A model from somebody's file, without any registration."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..contract import Layer


def load_model(reference: str) -> Layer:
    """Return the model that ``FILE.py:NAME`` names.

    The file is run as it is by Python's import, with its folder on the path, so it may import its
    neighbours.

    Args:
        reference: a file and a name in it; without a name, the file itself is the model.

    Raises:
        ValueError: if the file cannot be run, has no such name, or that is not a model.
    """
    file, _, name = reference.partition(":")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(
            f"a model must be named as FILE.py:NAME: got {reference!r}; there is no such file"
        )
    model: Any = _run(path)
    if name:
        if not hasattr(model, name):
            raise ValueError(f"{file} must define {name}: it does not; check the name after ':'")
        model = getattr(model, name)
    missing = [part for part in ("init", "forward", "vjp") if not hasattr(model, part)]
    if missing:
        raise ValueError(
            f"a model must have init, forward and vjp: {reference} has no {', '.join(missing)}; "
            "write it, or build the model with functional_lm.compose"
        )
    return model


def imported_neighbours(path: Path) -> list[Path]:
    """Return the other Python files of a file's folder that are imported at present."""
    folder = path.resolve().parent
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found = {Path(file).resolve() for file in files if file}
    return sorted(f for f in found if f.parent == folder and f != path.resolve())


def _run(path: Path) -> Any:
    module_name = f"functional_lm_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module
