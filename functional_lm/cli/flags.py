"""What several commands share: the flags of a model and its text, presets and config files."""

import dataclasses
import hashlib
import itertools
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ..contract import expect_choice
from ..files import FileFormatError, known_encoding, read_json, read_toml
from ..models.llama import PRESETS, Config
from ..runs.folder import MODEL_SOURCE, expect_run
from ..text import CORPORA, Corpus, load_corpus, read_corpus
from ..training import TrainConfig


def like(name: str, original: type, *, without: str, optional: str | None = None) -> Any:
    """Return a dataclass with the fields of another, for its flags.

    Args:
        name: of the new class.
        original: a dataclass with defaults for all fields that stay.
        without: the field that is no flag.
        optional: the field that may be None, and is by default.
    """
    hints = typing.get_type_hints(original)
    fields: list[Any] = []
    for field in dataclasses.fields(original):
        if field.name == optional:
            fields.append((field.name, hints[field.name] | None, dataclasses.field(default=None)))
        elif field.name != without:
            fields.append((field.name, hints[field.name], dataclasses.field(default=field.default)))
    made = dataclasses.make_dataclass(name, fields, frozen=True)
    made.__doc__ = original.__doc__
    return made


Sizes = like("Sizes", Config, without="vocab_size", optional="max_seq_len")
"""The flags of the model: the fields of `Config`, but for the vocabulary."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What to train, and on what.

    Attributes:
        text_file: a text to train on.
        encoding: of the text file.
        corpus: instead of a file: shakespeare (the default; downloaded once) or stdlib, the
            docstrings of the Python standard library.
        preset: the size of the model; explicit flags override it.
        model: FILE.py:NAME, a model of your own from tokens to logits, instead of the transformer.
    """

    text_file: Path | None = None
    encoding: str = "utf-8"
    corpus: Literal["shakespeare", "stdlib"] | None = None
    preset: Literal["tiny", "small", "medium"] = "tiny"
    model: str | None = None

    def __post_init__(self) -> None:
        """Check what a config file may have set."""
        if self.model is not None and not isinstance(self.model, str):
            raise TypeError(f"model must be FILE.py:NAME: got {self.model!r}")
        known_encoding(self.encoding)
        if self.corpus is not None:
            expect_choice("corpus", self.corpus, CORPORA)
        expect_choice("preset", self.preset, list(PRESETS))

    def load_text(self) -> Corpus:
        """Return the text."""
        if self.text_file is None:
            return load_corpus(self.corpus or "shakespeare")
        if self.corpus is not None:
            raise ValueError(
                f"a run has one text: got --text-file {self.text_file} and --corpus {self.corpus}; "
                "leave one out"
            )
        return read_corpus(self.text_file, encoding=self.encoding)

    def record(self, corpus: Corpus) -> dict[str, Any]:
        """Return what a run's config.json says of its text."""
        return {
            "text_file": None if self.text_file is None else str(self.text_file.resolve()),
            "encoding": self.encoding,
            "corpus": self.corpus,
            "source": corpus.source,
            "characters": len(corpus.text),
            "sha256": sha256_of(corpus.text),
        }

    def load_model(self) -> str:
        """Return the name of the model."""
        return "llama" if self.model is None else self.model


def sha256_of(text: str) -> str:
    """Return the hash of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def given_sizes(sizes: Any) -> dict[str, Any]:
    """Return the sizes as fields of `Config`, without those not given."""
    fields = dataclasses.asdict(sizes)
    return {name: value for name, value in fields.items() if value is not None}


_REPLACES = {
    "--steps": ["epochs"],
    "--epochs": ["steps"],
    "--text-file": ["corpus", "encoding"],
    "--corpus": ["text_file", "encoding"],
}
"""The settings of a config file that a flag puts out of force besides its own."""


def preset_defaults(arguments: list[str]) -> tuple[TrainConfig, Any, Source, dict[str, Any]]:
    """Return the defaults that --preset, --config and --resume set, for flags to override.

    Returns:
        Training settings, sizes, source, and what a config file holds besides.

    Raises:
        OSError: if the config file cannot be read.
        ValueError: if it is neither TOML nor JSON, or holds an unknown setting.
    """
    settings: dict[str, Any] = {}
    path = value_of("--config", arguments)
    run = value_of("--resume", arguments)
    if run is not None:
        path = str(expect_run(Path(run)))
    if path is not None:
        settings = _without_derived(read_settings(Path(path)))
        for flag, replaced in _REPLACES.items():
            if value_of(flag, arguments) is not None:
                for name in replaced:
                    settings.pop(name, None)
        expect_choice("preset", settings.get("preset", "tiny"), list(PRESETS))
    settings = PRESETS[settings.get("preset", "tiny")] | settings
    preset = value_of("--preset", arguments)
    if preset in PRESETS:  # of another the parser of the flags says what is wrong
        settings |= PRESETS[preset] | {"preset": preset}
    parts = []
    for part in (TrainConfig, Sizes, Source):
        names = {field.name for field in dataclasses.fields(part)}
        mine = {name: settings.pop(name) for name in list(settings) if name in names}
        if mine.get("text_file") is not None:
            mine["text_file"] = Path(mine["text_file"])
        parts.append(part(**mine))
    return (*parts, settings)  # type: ignore[return-value]


def _without_derived(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only follows from another setting, so that a flag for that takes it along."""
    if isinstance(settings.get("d_model"), int) and isinstance(settings.get("n_heads"), int):
        settings.setdefault("head_size", None)
        if settings["head_size"] == settings["d_model"] // settings["n_heads"]:
            settings = {**settings, "head_size": None}
    derived = {
        "n_kv_heads": settings.get("n_heads"),
        "max_seq_len": settings.get("seq_len"),
    }
    if isinstance(settings.get("d_model"), int):
        derived["d_ff"] = int(2.5 * settings["d_model"])
    return {k: v for k, v in settings.items() if k not in derived or v != derived[k]}


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML or JSON file; tables are merged, so a run's config serves.

    Raises:
        FileFormatError: if it is neither, or holds no settings by name.
        OSError: if it cannot be read.
    """
    content = read_json(path) if path.suffix == ".json" else read_toml(path)
    if not isinstance(content, dict):
        got = type(content).__name__
        raise FileFormatError(path, f"must hold settings by name: got a {got}; write an object")
    settings: dict[str, Any] = {}
    for name, value in content.items():
        settings |= value if isinstance(value, dict) else {name: value}
    if "model_file" in content:  # a run's config: its folder holds a copy of the file
        file = content["model_file"]
        if not isinstance(file, dict) or not isinstance(file.get("name"), str):
            raise FileFormatError(path, "must say the name of its model_file; restore it")
        settings["model"] = f"{path.parent / MODEL_SOURCE}:{file['name']}"
    for name in ("text_file", "text-file", "out"):
        if not isinstance(settings.get(name), str | None):
            got = type(settings[name]).__name__
            raise FileFormatError(path, f"must give {name} as a string: got a {got}; write quotes")
    recorded = {
        "vocab_size",
        "architecture",
        "dtype",
        "name",
        "from",
        "source",
        "sha256",
        "characters",
    }
    return {
        name.replace("-", "_"): value for name, value in settings.items() if name not in recorded
    }


def expect_known(settings: dict[str, Any], command: type) -> dict[str, Any]:
    """Return what a config file holds besides training, sizes and source, if they are flags.

    Raises:
        ValueError: naming the first that is none.
    """
    names = {field.name for field in dataclasses.fields(command)} - {"config"}
    for name in sorted(settings):
        if name not in names:
            raise ValueError(f"a config file holds flags by name: it has an unknown {name}")
    if settings.get("out") is not None:
        settings["out"] = Path(settings["out"])
    return settings


def new_folder(out: Path | None, name: str) -> Path:
    """Return the folder that was asked for, or a new one of that name under runs/.

    Raises:
        FileExistsError: if the folder that was asked for exists.
    """
    if out is None:
        return next(path for path in _numbered(name) if not path.exists())
    if out.exists():
        raise FileExistsError(f"the folder of a run must be new: {out} exists; pass another")
    return out


def _numbered(name: str) -> Iterator[Path]:
    yield Path("runs") / name
    for i in itertools.count(2):
        yield Path("runs") / f"{name}-{i}"


def value_of(flag: str, arguments: list[str]) -> str | None:
    """Return the value of a flag as ``--flag value`` or ``--flag=value``, the last one given."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(flag + "="):
            value = argument.partition("=")[2]
    return value
