"""The parser: fields of dataclasses become flags; recipes, presets and files set their defaults."""

import argparse
import contextlib
import dataclasses
import re
import typing
from collections.abc import Container, Iterator
from typing import Any

from ..contract import expect_choice
from ..models import DEFAULT, architectures, find
from ..runs import Intervals
from ..runs.folder import expect_run
from ..runs.lock import run_lock
from ..speed.runtime import launched
from ..training.recipes import settings_of
from .fields import Flag, fields_of, flags_of
from .flags import OF_THE_TEXT, read_settings
from .help import meant, page
from .output import print

REPLACES = {
    "steps": ("epochs",),
    "epochs": ("steps",),
    "text_file": ("corpus", "encoding", "data", "text_field", "validation"),
    "corpus": ("text_file", "encoding", "data", "text_field", "validation"),
    "data": ("text_file", "encoding", "corpus", "text_field", "validation"),
}
"""The settings of a config file that a flag overrides besides its own."""

NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "encoding": ("text_file or data", ()),
    "text_field": ("data", ()),
    "validation": ("data", ()),
    "overwrite": ("out", ()),
    "lora_alpha": ("lora_rank", ()),
    "lora_targets": ("lora_rank", ()),
    "lora_dropout": ("lora_rank", ()),
    "rslora": ("lora_rank", ()),
    "dora": ("lora_rank", ()),
    "adapter_size": ("adapter", ()),
}
"""Flags that make a difference only with another one, or with one of two: at these values, or at
any."""

LOOSE = {"text_file": "FILE", "prompt": "PROMPT"}
"""Flags whose value is understood without their name."""

SWITCHED = {"true", "false", "yes", "no", "on", "off", "1", "0"}

OF_A_RUN = {"log_every", "init", *(field.name for field in dataclasses.fields(Intervals))}
"""What a run's config.json also holds; commands without these flags ignore it."""


class FlagsError(ValueError):
    """The flags of a command are wrong; ``faults`` has a line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def parse(command: Any, arguments: list[str], *, program: str) -> Any:
    """Return a command with the values of its flags; None after printing its ``--help``.

    A flag overrides ``--preset``, which overrides a config file, which overrides ``--recipe``,
    which overrides the defaults. A command with a `Selection` has the flags of the selected model's
    ``Config``.

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
        options = flags_of(selection)
        texts, _ = _tokens(options, arguments)
        chosen = _values(options, texts, [])
        architecture, settings = _select(chosen, faults)
        model = chosen.get("model") or settings.get("model")
        unused |= dict.fromkeys(getattr(architecture, "IGNORED", ()), model)
        settings = {name: value for name, value in settings.items() if name not in unused}
    flags = [
        flag._replace(default=settings.get(flag.name, flag.default))
        for flag in flags_of(command, architecture, unused)
    ]
    texts, rest = _tokens(flags, arguments)
    if {"-h", "--help"} & set(rest):
        print(page(program, command, flags, LOOSE))
        return None
    names = {flag.name for flag in flags}
    for name in sorted(LOOSE.keys() & names - texts.keys()):
        if rest and _slip(rest[0], names) is None:
            texts[name] = [rest.pop(0)]
    for name in sorted(settings.keys() - names - OF_A_RUN - {*OF_THE_TEXT}):
        hint = meant(name, names) or "remove it"
        faults.append(f"unknown setting {name[:40]} in the config file; {hint}")
    faults += _unexpected(rest, flags, unused, selection is not None)
    given = _values(flags, texts, faults)
    for name in given:
        for other in REPLACES.get(name, ()):
            settings.pop(other, None)
    values = settings | given
    missing = [f for f in flags if f.default is dataclasses.MISSING and f.name not in values]
    if missing:  # or there, but wrong, or behind a flag that there is not
        required = (f"{f.spelling} is required: got none; pass {f.about[:-1]}" for f in missing)
        raise FlagsError(faults or list(required))
    in_force = {flag.name: flag.default for flag in flags} | values
    faults += filter(None, (_idle(name, in_force) for name in given))
    made = _make(command, architecture, values, faults)
    if faults:
        raise FlagsError(faults)
    return made


def _of_a_model(name: str) -> str:
    """Return which architectures have a setting, as the end of a message; "" if none has it."""
    owners = [
        architecture
        for architecture in architectures()
        if name in (field.name for field in dataclasses.fields(find(architecture).Config))
    ]
    return f"it is a flag of --model {' and '.join(owners)}" if owners else ""


def _unexpected(
    rest: list[str], flags: list[Flag], unused: dict[str, str], with_models: bool
) -> Iterator[str]:
    """Yield what is wrong with the arguments that no flag takes."""
    known = {flag.name: flag.spelling for flag in flags if not flag.positional}
    for word in (word.partition("=")[0] for word in rest if word[:1] == "-"):
        if (name := word.strip("-").replace("-", "_")) in unused:
            yield f"{word} makes no difference to {unused[name]}; remove it"
        else:
            hint = with_models and _of_a_model(name)
            yield f"there is no flag {word}; {hint or meant(word, known.values()) or 'remove it'}"
    if rest and rest[0][:1] != "-":
        hint = _slip(rest[0], known) or "name its flag, quote a text with spaces, or remove it"
        yield f"unexpected argument {rest[0]!r}; {hint}"


def _slip(word: str, names: Container[str]) -> str | None:
    """Return what to do about a word such as seed=5, or the true after --dry-run; None of others.

    A flag is no slip: it has a message of its own.
    """
    name, equals, _ = word.partition("=")
    if equals and name.replace("-", "_") in names:
        return f"did you mean --{word}?"
    if word.lower() in SWITCHED:
        return "a flag that is on or off takes no value"
    return "" if word[:1] == "-" else None


def _idle(name: str, values: dict[str, Any]) -> str:
    """Return the fault of a flag that makes no difference beside the others, or ""."""
    other, allowed = NEEDS.get(name, ("", ()))
    given = [values.get(one) for one in other.split(" or ")]
    if not other or any(one in allowed if allowed else one not in (None, ()) for one in given):
        return ""
    flags = f"--{other}".replace(" or ", " or --")
    required = " ".join([flags, " or ".join(allowed)]).rstrip()
    return f"--{name} needs {required}: got {given[0] or 'none'}; remove one".replace("_", "-")


def _select(chosen: dict[str, Any], faults: list[str]) -> tuple[Any, dict[str, Any]]:
    """Return the selected architecture, and the settings of recipe, preset and config file."""
    path = chosen.get("config")
    if (run := chosen.get("resume")) is not None:
        path = expect_run(run)
        if (launch := launched()) is None or launch.rank == 0:
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
    recipe = chosen.get("recipe") or in_file.get("recipe")
    model = chosen.get("model") or in_file.get("model")
    of_recipe: dict[str, Any] = {}
    if recipe is not None:
        with _noting(faults):
            of_recipe = settings_of(recipe, model)
    architecture = find(model or of_recipe.get("model") or DEFAULT)
    presets, preset = architecture.PRESETS, in_file.get("preset")
    if preset is not None:
        with _noting(faults):
            expect_choice("preset", preset, list(presets))
    below = presets.get(preset, {}) if isinstance(preset, str) else {}
    return architecture, {
        **of_recipe,
        **below,
        **in_file,
        **presets.get(chosen.get("preset", ""), {}),
    }


def _make(kind: Any, architecture: Any, values: dict[str, Any], faults: list[str]) -> Any:
    """Return a dataclass with the values that are known, None if it cannot be made.

    The text decides the ``vocab_size`` later.
    """
    fields = fields_of(kind, architecture)
    groups = {name: hint for name, hint in fields.items() if dataclasses.is_dataclass(hint)}
    own = fields.keys() - groups.keys()
    inner = {name: value for name, value in values.items() if name not in own}
    made = {name: values[name] for name in own & values.keys()}
    for name, hint in groups.items():
        made[name] = _make(hint, None, {"vocab_size": 1, **inner}, faults)
    with _noting(faults):
        return kind(**made)


def _tokens(flags: list[Flag], arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the texts of each flag that is given, and the arguments that belong to none.

    Raises:
        ValueError: for a flag without its value, or one that is on or off with a value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in flags:
        if flag.kind is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag.spelling, dest=flag.name, action=action)
        elif not flag.positional:  # argparse would take an absent one too early
            parser.add_argument(flag.spelling, dest=flag.name, nargs="*" if flag.many else 1)
    words: list[str] = []
    takes_value = {flag.spelling for flag in flags if flag.kind is not bool}
    for word in arguments:
        if words and words[-1] in takes_value and re.match("-(?!h$)[^-]", word):
            words[-1] += f"={word}"  # argparse would take -1e-3 for a flag
        else:
            words.append(re.sub("^--[^=]+", lambda name: name[0].replace("_", "-"), word))
    try:
        found, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        name = str(error.argument_name).partition("/")[0]
        if "explicit" in error.message:
            raise ValueError(f"{name} is on or off: it takes no value") from None
        raise ValueError(f"{name} needs a value: got none; pass one, or remove it") from None
    texts = {name: text for name, text in vars(found).items() if text is not None}
    for flag in flags:
        if flag.positional and rest and rest[0][:1] != "-":
            end = next((i for i, word in enumerate(rest) if word[:1] == "-"), len(rest))
            end = end if flag.many else 1
            texts[flag.name], rest = rest[:end], rest[end:]
    return texts, rest


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
