"""The parser: fields of dataclasses become flags; presets and config files set their defaults."""

import contextlib
import dataclasses
import inspect
import io
import re
import types
import typing
import warnings
from collections.abc import Iterable, Iterator
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
from ..models import DEFAULT, architectures, find
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

OF_A_RUN = {"log_every", "init", *(field.name for field in dataclasses.fields(Intervals))}
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
    architecture = None
    unused = dict.fromkeys(getattr(command, "IGNORED", ()), program.rpartition(" ")[2])
    if (selection := typing.get_type_hints(command).get("model")) is not None:
        options = _flags(selection, None, "", set())
        texts, _ = _tokens(options, arguments, program)
        chosen = _values(options, texts, [])
        architecture, settings = _select(chosen, faults)
        model = chosen.get("model") or settings.get("model")
        unused |= dict.fromkeys(getattr(architecture, "IGNORED", ()), model)
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
    if rest and rest[0][:1] != "-" and "text_file" in names - texts.keys():
        texts["text_file"] = [rest.pop(0)]  # train FILE
    for name in sorted(settings.keys() - names - OF_A_RUN - {"vocab_size"}):
        hint = meant(name, names - {"config", "resume"}) or "remove it"
        faults.append(f"a config file holds flags by name: it has an unknown {name[:40]}; {hint}")
    known = [flag.spelling for flag in flags if not flag.positional]
    for text in (argument.partition("=")[0] for argument in rest if argument[:1] == "-"):
        if (name := text.strip("-").replace("-", "_")) in unused:
            faults.append(f"{text} makes no difference to {unused[name]}; remove it")
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
    trust = bool(chosen.get("trust_model"))
    in_file = {} if path is None else read_settings(path, trust_model=trust)
    if run is not None:
        in_file.pop("init", None)
    if (base := chosen.get("init") or in_file.get("init")) is not None:  # its model is the default
        of_base = read_settings(expect_run(base), trust_model=trust)
        sizes = dataclasses.fields(find(of_base.get("model") or DEFAULT).Config)
        kept = {"model", *(field.name for field in sizes)}
        in_file = {k: v for k, v in of_base.items() if k in kept} | in_file
    architecture = find(chosen.get("model") or in_file.get("model") or DEFAULT)
    presets, preset = architecture.PRESETS, in_file.get("preset")
    if preset is not None:
        with _noting(faults):
            expect_choice("preset", preset, list(presets))
    below = presets.get(preset, {}) if isinstance(preset, str) else {}
    return architecture, {**below, **in_file, **presets.get(chosen.get("preset", ""), {})}


# Dataclasses and flags.


def flags_of(command: Any, architecture: Any, hidden: Iterable[str] = ()) -> list[Flag]:
    """Return the flags of a command.

    Args:
        command: its class.
        architecture: the selected model.
        hidden: what is left out of the groups; its own flags hide theirs anyway.
    """
    flags = _flags(command, architecture, "Options", {"vocab_size", *hidden})
    for i, flag in enumerate(flags):
        if flag.name == "preset":
            presets = tuple(architecture.PRESETS)
            flags[i] = flag._replace(choices=presets, metavar="|".join(presets))
        elif flag.name == "model":
            flags[i] = flag._replace(metavar="|".join([*architectures(), "FILE.py:NAME"]))
    return flags


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
    rules = ConstructorRegistry()

    @rules.struct_rule
    def rule(info: Any) -> StructConstructorSpec | None:
        return StructConstructorSpec(dict, tuple(map(_field, flags))) if info.type is Flag else None

    said, found = io.StringIO(), None
    with (
        contextlib.redirect_stderr(said),
        contextlib.suppress(SystemExit),
        warnings.catch_warnings(action="ignore"),  # None, if not given, is of no flag's type
    ):
        found = tyro.cli(
            Flag, args=arguments, registry=rules, return_unknown_args=True, add_help=False
        )
    if found is None:
        flag = re.search(r"--\w[\w-]*", said.getvalue())
        raise ValueError(f"{flag and flag[0]} needs a value: got none; see {program} --help")
    texts: Any = found[0]
    absent = {flag.name: flag.default for flag in flags if flag.kind is bool}
    given = {name: text for name, text in texts.items() if text is not absent.get(name)}
    # tyro returns [[]] for an optional argument that is absent where there is an unknown flag.
    return {name: text for name, text in given.items() if text != [[]]}, found[1]


def _field(flag: Flag) -> StructFieldSpec:
    """Return how tyro splits the words of a flag."""
    if flag.kind is bool:
        return StructFieldSpec(flag.name, bool, flag.default)
    spec = PrimitiveConstructorSpec(
        nargs="*" if flag.many else 1,
        metavar=flag.metavar,
        instance_from_str=list,
        is_instance=lambda value: True,
        str_from_instance=list,
    )
    marks = [tyro.conf.Positional] if flag.positional else []
    return StructFieldSpec(flag.name, Annotated[(list, spec, *marks)], None)  # type: ignore[arg-type]


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
