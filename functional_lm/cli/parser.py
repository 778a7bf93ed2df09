"""The parser: fields of dataclasses become flags; presets and config files set their defaults."""

import contextlib
import dataclasses
import inspect
import io
import re
import types
import typing
import warnings
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
)

from ..contract import expect_choice
from ..models import DEFAULT, find
from ..runs import Intervals
from ..runs.folder import expect_run
from ..runs.lock import run_lock
from .flags import Argument, C, read_settings
from .help import meant, page
from .output import print

REPLACES = {
    "steps": ("epochs",),
    "epochs": ("steps",),
    "text_file": ("corpus", "encoding"),
    "corpus": ("text_file", "encoding"),
}
"""The settings of a config file that a flag overrides besides its own."""

OF_A_RUN = {"log_every", *(field.name for field in dataclasses.fields(Intervals))}
"""What a run's config.json also holds; commands without these flags ignore it."""

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
NUMBERS = {int: "a whole number, such as 1000 or 1e3", float: "a number, such as 0.1 or 3e-4"}


class FlagsError(ValueError):
    """The flags of a command are wrong; ``faults`` has a line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Flag(NamedTuple):
    """A field of a dataclass on the command line."""

    name: str
    kind: Any  # what makes a value of a text; bool for a flag without one
    default: Any
    about: str
    group: str  # the heading in the help
    many: bool  # takes any number of values
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
        if texts == ["None"]:
            return None
        values = [self._read(text) for text in texts]
        return tuple(values) if self.many else values[0]

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


def parse(command: Any, arguments: list[str], *, program: str) -> Any:
    """Return a command with the values of its flags; None after printing its ``--help``.

    A flag overrides ``--preset``, which overrides a config file, which overrides the defaults. A
    command with a `Selection` has the flags of the selected model's ``Config``.

    Raises:
        FlagsError: with all faults.
        OSError: if the config file or the run to resume cannot be read.
        RunLockedError: if another process trains the run to resume.
        ValueError: if a flag lacks its value, the file is neither TOML nor JSON, or the model
            cannot be found.
    """
    faults: list[str] = []
    settings: dict[str, Any] = {}
    architecture, unused = None, set(getattr(command, "IGNORED", ()))
    if (selection := typing.get_type_hints(command).get("model")) is not None:
        options = _flags(selection, None, "", set())
        texts, _ = _tokens(options, arguments, program)
        architecture, settings = _select(_values(options, texts, []), faults)
        unused |= getattr(architecture, "IGNORED", set())
        settings = {name: value for name, value in settings.items() if name not in unused}
    flags = [
        flag._replace(default=settings.get(flag.name, flag.default))
        for flag in flags_of(command, architecture, unused)
    ]
    texts, rest = _tokens(flags, arguments, program)
    if {"-h", "--help"} & set(rest):
        print(page(program, command, flags))
        return None
    names = {flag.name for flag in flags}
    if len(rest) == 1 and rest[0][:1] != "-" and "text_file" in names - texts.keys():
        texts["text_file"], rest = rest, []  # train FILE
    for name in sorted(settings.keys() - names - OF_A_RUN - {"vocab_size"}):
        hint = meant(name, names - {"config", "resume"}) or "remove it"
        faults.append(f"a config file holds flags by name: it has an unknown {name[:40]}; {hint}")
    known = [flag.spelling for flag in flags if not flag.positional]
    for text in (argument.partition("=")[0] for argument in rest if argument[:1] == "-"):
        if text.strip("-").replace("-", "_") in unused:
            faults.append(f"{text} makes no difference here; remove it")
        else:
            faults.append(f"there is no flag {text}; {meant(text, known) or 'remove it'}")
    if rest and rest[0][:1] != "-":
        faults.append(f"{rest[0]!r} follows no flag; name its flag, or remove it")
    values = _values(flags, texts, faults)
    for name in list(values):
        for other in REPLACES.get(name, ()):
            settings.pop(other, None)
    values = settings | values
    for flag in flags:
        if flag.default is dataclasses.MISSING and flag.name not in values:
            what = flag.about.partition(".")[0]
            raise FlagsError([*faults, f"{flag.spelling} is required: got none; pass {what}"])
    made = _make(command, architecture, values, faults)
    if faults:
        raise FlagsError(faults)
    return made


def _select(chosen: dict[str, Any], faults: list[str]) -> tuple[Any, dict[str, Any]]:
    """Return the selected architecture, and the settings of the preset and the config file."""
    path = chosen.get("config")
    if (run := chosen.get("resume")) is not None:
        path = expect_run(run)
        with run_lock(run):  # a second process on a run ends here, before it does anything
            pass
    in_file = {} if path is None else read_settings(path)
    architecture = find(chosen.get("model") or in_file.get("model") or DEFAULT)
    presets, preset = architecture.PRESETS, in_file.get("preset")
    if preset is not None:
        with _noting(faults):
            expect_choice("preset", preset, list(presets))
    below = presets.get(preset, {}) if isinstance(preset, str) else {}
    return architecture, {**below, **in_file, **presets.get(chosen.get("preset", ""), {})}


# Dataclasses and flags.


def flags_of(command: Any, architecture: Any, hidden: Set[str] = frozenset()) -> list[Flag]:
    """Return the flags of a command.

    Args:
        command: its class.
        architecture: the selected model.
        hidden: what is left out of the groups; its own flags hide theirs anyway.
    """
    flags = _flags(command, architecture, "Options", {"vocab_size", *hidden})
    presets = tuple(architecture.PRESETS) if architecture else ()
    return [
        flag._replace(choices=presets, metavar="|".join(presets)) if flag.name == "preset" else flag
        for flag in flags
    ]


def _flags(kind: Any, architecture: Any, group: str, hidden: set[str]) -> list[Flag]:
    about, fields = documented(kind), _fields(kind, architecture)
    own = {name for name, hint in fields.items() if not dataclasses.is_dataclass(hint)}
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
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
        hint, argument = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    many = typing.get_origin(hint) in (tuple, list)
    kind = typing.get_args(hint)[0] if many else hint
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    kind = str if choices else kind
    metavar = argument.metavar or "|".join(choices) or METAVARS.get(kind, "VALUE") + "..." * many
    kind = argument.read or kind
    return Flag(name, kind, default, about, group, many, choices, metavar, argument.positional)


def documented(kind: Any) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of their attributes."""
    texts = {}
    for base in reversed(kind.__mro__):
        attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def _fields(kind: Any, architecture: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, the model's ``Config`` in place of its variable."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: architecture.Config if hints[name] is C else hints[name] for name in names}


def _make(kind: Any, architecture: Any, values: dict[str, Any], faults: list[str]) -> Any:
    """Return a dataclass with the values that are known, None if it cannot be made.

    The text decides the ``vocab_size`` later.
    """
    fields = _fields(kind, architecture)
    groups = {name: hint for name, hint in fields.items() if dataclasses.is_dataclass(hint)}
    own = fields.keys() - groups.keys()
    inner = {name: value for name, value in values.items() if name not in own}
    made = {name: values[name] for name in own & values.keys()}
    for name, hint in groups.items():
        made[name] = _make(hint, None, {"vocab_size": 1, **inner}, faults)
    with _noting(faults):
        return kind(**made)


# Flags and texts.


def _tokens(
    flags: list[Flag], arguments: list[str], program: str
) -> tuple[dict[str, Any], list[str]]:
    """Return what follows each flag that is given, and the arguments that are none of them.

    Raises:
        ValueError: for a flag without its value.
    """
    said = io.StringIO()
    found: Any
    with (
        contextlib.redirect_stderr(said),
        contextlib.suppress(SystemExit),
        warnings.catch_warnings(action="ignore"),  # None, if not given, is of no flag's type
    ):
        found, rest = tyro.cli(
            Flag,
            args=arguments,
            registry=registry({Flag: flags}),
            return_unknown_args=True,
            add_help=False,
        )
        defaults = {flag.name: flag.default for flag in flags if flag.kind is bool}
        return {k: v for k, v in found.items() if v is not defaults.get(k)}, rest
    flag = re.search(r"--\w[\w-]*", said.getvalue())
    raise ValueError(f"{flag and flag[0]} needs a value: got none; see {program} --help")


def registry(kinds: dict[Any, list[Flag]], *, strict: bool = False) -> ConstructorRegistry:
    """Return tyro's rules for classes by their flags: each becomes a dict of texts.

    Args:
        kinds: the flags of each class.
        strict: whether tyro knows the choices.
    """
    rules = ConstructorRegistry()

    def field(flag: Flag) -> StructFieldSpec:
        spec = PrimitiveConstructorSpec(
            nargs="*" if flag.many else 1,
            metavar=flag.metavar,
            instance_from_str=list,
            is_instance=lambda value: True,
            str_from_instance=lambda value: [str(value)],
            choices=flag.choices if flag.choices and strict else None,
        )
        marks = [tyro.conf.Positional] if flag.positional else []
        hint: Any = bool if flag.kind is bool else Annotated[(list, spec, *marks)]
        return StructFieldSpec(flag.name, hint, flag.default if hint is bool else None, flag.about)

    @rules.struct_rule
    def rule(info: Any) -> StructConstructorSpec | None:
        if info.type not in kinds:
            return None
        return StructConstructorSpec(dict, tuple(map(field, kinds[info.type])))

    return rules


def _values(flags: list[Flag], texts: dict[str, Any], faults: list[str]) -> dict[str, Any]:
    """Return the values of the flags that are given."""
    values = {}
    for flag in flags:
        if flag.name in texts:
            with _noting(faults):
                text = texts[flag.name]
                values[flag.name] = text if flag.kind is bool else flag.read(text)
    return values


@contextlib.contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """Note the fault of a value in place of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        faults += str(error).splitlines()
