"""The fields of dataclasses as flags: their names, texts, and how a value is read."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from ..contract import expect_choice
from ..models import architectures
from .flags import OF_THE_TEXT, Argument, C

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
NUMBERS = {int: "a whole number, such as 1000 or 1e3", float: "a number, such as 0.1 or 3e-4"}


class Flag(NamedTuple):
    """A field of a dataclass on the command line."""

    name: str
    kind: Any  # what makes a value of a text; bool for a flag without one
    default: Any
    about: str
    group: str  # the heading in the help
    many: type | None  # the container of any number of values
    choices: tuple[str, ...]
    metavar: str
    positional: bool

    @property
    def spelling(self) -> str:
        """What the user types, without a value."""
        return self.metavar if self.positional else "--" + self.name.replace("_", "-")

    def read(self, texts: list[str]) -> Any:
        """Return the value of what the user typed.

        Raises:
            ValueError: saying what is required.
        """
        if not texts:
            raise ValueError(f"{self.spelling} needs a value: got none; pass one, or remove it")
        if texts == ["None"]:
            return None
        values = [self._read(text) for text in texts]
        return self.many(values) if self.many else values[0]

    def _read(self, text: str) -> Any:
        if self.choices:
            expect_choice(self.name, text, self.choices)
        try:
            return _whole(text) if self.kind is int else self.kind(text)
        except ValueError:
            if self.kind not in NUMBERS:
                raise
        raise ValueError(f"{self.spelling} must be {NUMBERS[self.kind]}: got {text!r}")


def _whole(text: str) -> int:
    """Read 1000, 1_000, 1e3 or 1k."""
    try:
        return int(text)
    except ValueError:
        scale = {"k": 1e3, "m": 1e6}.get(text[-1:].lower())
        number = float(text[:-1]) * scale if scale else float(text)
        if not number.is_integer():  # nor is infinity
            raise
        return int(number)


def flags_of(command: Any, architecture: Any = None, hidden: Iterable[str] = ()) -> list[Flag]:
    """Return the flags of a command.

    Args:
        command: its class.
        architecture: the selected model.
        hidden: what is left out of the groups; its own flags hide theirs anyway.
    """
    flags = _flags(command, architecture, "Options", {*OF_THE_TEXT, *hidden})
    for i, flag in enumerate(flags):
        if flag.name == "preset" and architecture is not None:
            presets = tuple(architecture.PRESETS)
            flags[i] = flag._replace(choices=presets, metavar="|".join(presets))
        elif flag.name == "model":
            flags[i] = flag._replace(metavar="|".join([*architectures(), "FILE.py:NAME"]))
    return flags


def _flags(kind: Any, architecture: Any, group: str, hidden: set[str]) -> list[Flag]:
    about, fields = _documented(kind), fields_of(kind, architecture)
    own = {name for name, hint in fields.items() if not dataclasses.is_dataclass(hint)}
    defaults = {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in dataclasses.fields(kind)
    }
    flags = []
    for name, hint in fields.items():
        text = about.get(name, "")
        if name in own:
            flags.append(_flag(name, hint, defaults[name], text, group))
        else:
            inner = _flags(hint, None, text or name, set())
            flags += [flag for flag in inner if flag.name not in own | hidden]
    return flags


def _flag(name: str, hint: Any, default: Any, about: str, group: str) -> Flag:
    """Return a field of a type such as ``int | None``, ``tuple[str, ...]`` or a Literal."""
    argument = Argument("", positional=False)
    if typing.get_origin(hint) is Annotated:
        hint, *marks = typing.get_args(hint)
        argument = next((mark for mark in marks if isinstance(mark, Argument)), argument)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    many = typing.get_origin(hint) if typing.get_origin(hint) in (tuple, list) else None
    kind = typing.get_args(hint)[0] if many else hint
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    kind = str if choices else kind
    metavar = (
        argument.metavar or "|".join(choices) or METAVARS.get(kind, "VALUE") + "..." * bool(many)
    )
    kind = argument.read or kind
    return Flag(name, kind, default, about, group, many, choices, metavar, argument.positional)


def _documented(kind: Any) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of their attributes."""
    texts = {}
    for base in reversed(kind.__mro__):
        attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def fields_of(kind: Any, architecture: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, the model's ``Config`` in place of its variable."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    return {name: architecture.Config if hints[name] is C else hints[name] for name in names}
