"""The parser: the fields of dataclasses become flags, presets and config files set the defaults."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import itertools
import re
import typing
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from ..contract import expect_choice
from ..models import DEFAULT, find
from ..runs import Intervals
from ..runs.folder import expect_run
from ..runs.lock import run_lock
from .flags import read_settings

MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)

REPLACES = {
    "steps": ("epochs",),
    "epochs": ("steps",),
    "text_file": ("corpus", "encoding"),
    "corpus": ("text_file", "encoding"),
}
"""The settings of a config file that a flag overrides besides its own."""

OF_A_RUN = {"log_every", "init", *(field.name for field in dataclasses.fields(Intervals))}
"""What a run's config.json also holds; commands without these flags ignore it."""


class FlagsError(ValueError):
    """The flags of a command are wrong; ``faults`` has a line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def parse(command: Any, arguments: list[str], *, program: str) -> Any:
    """Return a command with the values of its flags.

    A flag overrides ``--preset``, which overrides a config file, which overrides the defaults. A
    command with a `Selection` is generic in the `Config` of the selected model.

    Raises:
        FlagsError: with all faults.
        OSError: if the config file cannot be read.
    """
    flags, about = Flags(), str(inspect.getdoc(command)).partition("\n\nAttributes:")[0]
    selection = typing.get_type_hints(command).get("model")
    if selection is not None:
        given, _ = _cli(selection, arguments, program, _registry(_as_given), add_help=False)
        flags.select(given)
        command = command[flags.architecture.Config]
    made, unknown = _cli(command, arguments, program, _registry(flags.adapt), description=about)
    flags.expect_known(unknown)
    if flags.faults:
        raise FlagsError(flags.faults)
    return made


def completion(commands: dict[str, Any], shell: str) -> str:
    """Return the script with which a shell completes the commands and their flags."""
    default, script = find(DEFAULT).Config, io.StringIO()
    kinds = {
        name: command[default] if "model" in typing.get_type_hints(command) else command
        for name, command in commands.items()
    }
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            kinds,
            prog="functional-lm",
            args=["--tyro-print-completion", shell],
            config=MARKERS,
            registry=_registry(Flags().adapt, lenient=False),
        )
    return script.getvalue()


class Flags:
    """How the fields of a command and of the groups in it become flags.

    Attributes:
        faults: what is wrong, a line each.
        architecture: of the selected model.
        settings: defaults by name, from presets and a config file.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.architecture: Any = None
        self.settings: dict[str, Any] = {}
        self._shown: set[str] = set()
        self._hidden: set[str] = set()

    def select(self, given: dict[str, Any]) -> None:
        """Set the defaults that the model, the preset and the config file give.

        Raises:
            OSError: if the config file cannot be read, or there is no run to resume.
            RunLockedError: if another process trains that run.
            ValueError: if the file is neither TOML nor JSON, or the model cannot be found.
        """
        path, run = given["config"], given.get("resume")
        if run is not None:
            path = expect_run(run)
            with run_lock(run):  # a second process on a run ends here, before it does anything
                pass
        in_file = {} if path is None else read_settings(path)
        if run is not None:
            in_file.pop("init", None)
        base = given.get("init") or in_file.get("init")
        if base is not None:  # its model is the default
            of_base = read_settings(expect_run(base))
            kept = {"model", *(f.name for f in dataclasses.fields(find(of_base["model"]).Config))}
            in_file = {k: v for k, v in of_base.items() if k in kept} | in_file
        model = given["model"] or in_file.get("model") or DEFAULT
        self.architecture = find(model)
        presets, sizes = self.architecture.PRESETS, []
        for name in (in_file.get("preset"), given["preset"]):
            sizes.append(presets.get(name, {}) if isinstance(name, str) else {})
            if name is not None:
                self._collect(expect_choice, "preset", name, list(presets))
        self.settings = {**sizes[0], **in_file, **sizes[1]}

    def adapt(self, kind: type, spec: StructConstructorSpec) -> StructConstructorSpec:
        """Leave out fields that are no flags, set the defaults, and collect what is wrong."""
        names = {field.name for field in spec.fields if not dataclasses.is_dataclass(field.type)}
        if hasattr(kind, "run"):  # a command, whose own flags hide those of its groups
            ignored = getattr(kind, "IGNORED", ())
            self.settings = {k: v for k, v in self.settings.items() if k not in ignored}
            self._hidden = {*names, "vocab_size", *ignored}
            hidden: set[str] = set()
        else:
            hidden = names & self._hidden
        required = dict.fromkeys(hidden & {"vocab_size"}, 1)  # which the text decides later

        def make(**flags: Any) -> Any:
            self._put_out_of_force(flags, spec)
            return self._collect(spec.instantiate, **flags, **required)

        fields = [self._as_flag(field) for field in spec.fields if field.name not in hidden]
        return StructConstructorSpec(make, tuple(fields))

    def expect_known(self, unknown: list[str]) -> None:
        """Report the settings of the config file and the arguments that no flag takes."""
        known = self._shown - {"config", "resume"} | self._hidden
        for name in sorted(self.settings.keys() - known - OF_A_RUN):
            fault = f"a config file holds flags by name: it has an unknown {name[:40]}"
            self.faults.append(fault + _similar(name, known))
        flags = {"--" + name.replace("_", "-") for name in self._shown}
        for flag in [argument.partition("=")[0] for argument in unknown if argument[:1] == "-"]:
            self.faults.append(f"there is no flag {flag}" + _similar(flag, flags))
        if unknown and unknown[0][:1] != "-":
            self.faults.append(f"{unknown[0]!r} follows no flag; name its flag, or leave it out")

    def _as_flag(self, field: StructFieldSpec) -> StructFieldSpec:
        """Return a field with the default and the choices of this call."""
        if dataclasses.is_dataclass(field.type):  # a group
            return field
        self._shown.add(field.name)
        if field.name == "preset" and self.architecture is not None:
            choices = tyro.conf.arg(metavar="{" + ",".join(self.architecture.PRESETS) + "}")
            field = dataclasses.replace(field, type=Annotated[field.type, choices])  # type: ignore[arg-type]
        return dataclasses.replace(field, default=self.settings.get(field.name, field.default))

    def _put_out_of_force(self, flags: dict[str, Any], spec: StructConstructorSpec) -> None:
        """Reset the settings of the config file that a given flag replaces."""
        defaults = {field.name: field.default for field in spec.fields}
        for name, others in REPLACES.items():
            if name in flags and flags[name] != self.settings.get(name, defaults[name]):
                for other in set(others) & flags.keys():
                    if flags[other] == self.settings.get(other):
                        flags[other] = defaults[other]

    def _collect(self, make: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Return what a call returns; if it raises, note why."""
        try:
            return make(*values, **named)
        except (TypeError, ValueError) as error:
            self.faults += str(error).splitlines()


def _cli(kind: Any, arguments: list[str], program: str, registry: Any, **settings: Any) -> Any:
    """Return what tyro makes, and the arguments that it does not know.

    Raises:
        ValueError: for arguments that it cannot read.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the dataclass says if a setting has another type
            return tyro.cli(
                kind,
                args=arguments,
                prog=program,
                config=MARKERS,
                registry=registry,
                return_unknown_args=True,
                **settings,
            )
    except SystemExit as error:
        if not error.code:
            raise
    lines = [line.strip("│╭╮╰╯ \n") for line in said.getvalue().splitlines()[1:]]
    paragraph = itertools.takewhile(lambda line: line.strip("─") or not line, lines)
    fault = " ".join(filter(None, paragraph)).rstrip(".")
    fault = re.sub(r"Missing from [^:]+: (\S+) .*", r"\1 is required: got none", fault)
    raise ValueError(f"{fault}; see {program} --help")


def _registry(
    adapt: Callable[[type, StructConstructorSpec], StructConstructorSpec], *, lenient: bool = True
) -> ConstructorRegistry:
    """Return tyro's rules.

    Args:
        adapt: changes what tyro makes of a dataclass.
        lenient: leave it to the dataclasses to refuse a value, so that all faults are found.
    """
    registry, adapting = ConstructorRegistry(), False

    @registry.struct_rule
    def dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal adapting
        if adapting or not dataclasses.is_dataclass(info.type):
            return None
        adapting = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            adapting = False
        assert isinstance(spec, StructConstructorSpec)
        return adapt(info.type, spec)

    def primitive_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if typing.get_origin(info.type) is Literal:
            kind, metavar = str, "{" + ",".join(typing.get_args(info.type)) + "}"
        elif info.type in (int, float):
            kind, metavar = info.type, info.type.__name__.upper()
        elif typing.get_args(info.type)[1:] == (type(None),):
            return _optional(typing.get_args(info.type)[0], info.markers)
        else:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda arguments: _as(kind, arguments[0]),
            is_instance=lambda value: value is not None,
            str_from_instance=lambda value: [str(value)],
        )

    if lenient:
        registry.primitive_rule(primitive_rule)
    return registry


def _optional(kind: Any, markers: Any) -> PrimitiveConstructorSpec[Any]:
    """Return what tyro does for ``kind | None``, without a word about None in the help."""
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, markers))
    assert isinstance(spec, PrimitiveConstructorSpec)
    return dataclasses.replace(
        spec,
        instance_from_str=lambda texts: (
            None if texts == ["None"] else spec.instance_from_str(texts)
        ),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def _as(kind: Callable[[str], Any], text: str) -> Any:
    """Return a number, or the text if it is not one."""
    try:
        return kind(text)
    except ValueError:
        return text


def _as_given(kind: type, spec: StructConstructorSpec) -> StructConstructorSpec:
    """Make a dict of the flags that are given, with None for the others."""
    fields = (
        dataclasses.replace(field, type=field.type | None, default=None)  # type: ignore[arg-type]
        for field in spec.fields
    )
    return StructConstructorSpec(dict, tuple(fields))


def _similar(name: str, known: set[str]) -> str:
    """Return a hint at the name that was meant."""
    close = difflib.get_close_matches(name, known, 1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else "; remove it"
