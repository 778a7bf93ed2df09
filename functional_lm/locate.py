"""Errors from inside a composed model say where: ``blocks.0.mlp.act (geglu.py, line 14): ...``.

Nothing is recorded on the way. When an exception passes a function that `located` wraps, the path
is read from its traceback: each frame named ``forward``, ``vjp``, ... is a layer at work, and its
parameters (or residuals) are a part of those of the layer around it. Which part gives the name.
"""

import functools
import linecache
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

__all__ = ["FUNCTIONS", "located", "name_of"]

FUNCTIONS = ("init", "forward", "vjp", "jvp", "input_vjp", "init_cache", "step")
"""The functions of a layer, whose frames count."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_CALL = re.compile(rf"(\w+)\.(?:{'|'.join(FUNCTIONS)})\(")
_ANY_LAYER = ("layer", "wiring", "model", "self")  # names that do not tell which
_KEYWORD = re.compile(
    r"\S+\(\) (?:missing \d+ required keyword-only arguments?: (?P<missing>.*)"
    r"|got an unexpected keyword argument (?P<unknown>'\w+')).*"
)


def located(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap a function of a layer so that an exception from inside says which layer raised it.

    The exception stays the same object. Its message gets the path, the file and the line in front;
    if it has no plain message, it gets a note.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            _locate(error)
            raise

    return call


def name_of(layer: Any) -> str:
    """Return the short name of a layer: that of its module or its class."""
    return getattr(layer, "__name__", type(layer).__name__).rpartition(".")[2]


def _locate(error: Exception) -> None:
    """Put the layer into the message. An outer call does so again, with a longer path."""
    trace, frames = error.__traceback__, []
    while trace is not None:
        last = trace.tb_frame
        if last.f_code.co_name in FUNCTIONS:
            frames.append((last, trace.tb_lineno))
        trace = trace.tb_next
    if not frames:
        return
    frame, line = frames[-1]
    path = [_name(*outer, inner) for outer, (inner, _) in pairwise(frames)]
    where = f" ({Path(frame.f_code.co_filename).name}, line {line})"
    message = error.__dict__.setdefault("message_alone", str(error))
    wrong = _KEYWORD.fullmatch(message)
    if wrong and last is frame and isinstance(error, TypeError):  # raised by a call in that frame
        layer = frame.f_locals.get("layer") or getattr(frame.f_locals.get("self"), "layer", None)
        called = _name(frame, line, None)
        who, where = name_of(layer) if layer else called, ""
        path.append(called)
        message = (
            f"{who} requires {wrong['missing']}: got none; pass by keyword, or fix with bind"
            if wrong["missing"]
            else f"{who} takes no keyword {wrong['unknown']}; remove or rename it"
        )
    elif not any(path):
        return
    prefix = ".".join(filter(None, path)) + where
    if error.args[:1] == (str(error),):
        error.args = (f"{prefix}: {message}" if prefix else message, *error.args[1:])
    else:
        notes = [note for note in getattr(error, "__notes__", []) if not note.startswith("layer ")]
        error.__notes__ = [*notes, f"layer {prefix}"]


def _name(outer: FrameType, line: int, inner: FrameType | None) -> str:
    """Return what a layer calls the one inside it; "" if that is itself, as in a bound layer."""
    whole, part = _first_argument(outer), _first_argument(inner)
    back = outer.f_code.co_name in ("vjp", "jvp")  # of a layer that runs its forward again
    again = back and inner is not None and inner.f_code.co_name == "forward"
    if (part is whole and part is not None) or again:
        return ""
    found = None if part is None or isinstance(part, (int, str)) else _find(whole, part)
    if found is not None:
        return found
    call = _CALL.search(linecache.getline(outer.f_code.co_filename, line))
    if call and call[1] not in _ANY_LAYER:
        return call[1]
    return str(outer.f_locals.get("_name", ""))  # of a loop over layers


def _first_argument(frame: FrameType | None) -> Any:
    """Return the parameters or residuals that a function of a layer was called with."""
    if frame is None:
        return None
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return next((frame.f_locals.get(name) for name in names if name != "self"), None)


def _find(tree: Any, part: Any) -> str | None:
    """Return the path of an object in a tree of dicts, tuples and lists, or None."""
    fields = getattr(tree, "_fields", None)
    if isinstance(tree, (tuple, list)):
        tree = dict(zip(fields or range(len(tree)), tree, strict=True))
    for name, child in tree.items() if isinstance(tree, dict) else ():
        below = "" if child is part else _find(child, part)
        if below is not None:
            return f"{name}.{below}".rstrip(".")
    return None
