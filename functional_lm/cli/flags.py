"""Groups of flags that several commands share, and files of settings."""

import dataclasses
import itertools
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from ..files import FileFormatError, read_json, read_toml
from ..models import DEFAULT
from ..models.adapting import AdapterConfig
from ..models.loading import split_reference
from ..runs.folder import expect_free
from ..runs.trust import expect_own_model, hold_model
from ..text import Corpus, EncodedCorpus, FileCorpus, Part, Tokenizer, load_corpus, read_corpus
from ..text.tokenizer import expect_spec
from ..training import RECIPES, Cluster, Experiment, TrainConfig
from .output import print

C = TypeVar("C")
"""The `Config` of an architecture."""


class Argument(NamedTuple):
    """How a field is read, in ``Annotated[...]``, where its type does not say it."""

    metavar: str
    read: Callable[[str], Any] | None = None
    positional: bool = True


@dataclasses.dataclass(frozen=True)
class Selection:
    """The model, by name; it decides which other flags there are.

    Attributes:
        model: an architecture, or NAME in a Python file for a custom model.
        preset: a size by name. Not given: the defaults below.
        config: a TOML or JSON file of settings, such as a run's config.json; flags override it.
        trust_model: run model code that comes with a run or a config file, whoever wrote it.
    """

    model: str = DEFAULT
    preset: str | None = None
    config: Path | None = None
    trust_model: bool = False


@dataclasses.dataclass(frozen=True)
class TrainSelection(Selection):
    """The model and a recipe, by name; they decide which other flags there are.

    Attributes:
        recipe: settings of model and training that work well together; all else overrides them.
    """

    recipe: Annotated[str | None, Argument("|".join(RECIPES), positional=False)] = None


@dataclasses.dataclass(frozen=True)
class Source:
    """The text to train on.

    Attributes:
        text_file: the file to train on.
        encoding: the encoding of the file.
        corpus: a text instead of a file: shakespeare (the default, downloaded once), or stdlib,
            the docstrings of Python's standard library.
        data: instead, files or folders of any size: .txt, .jsonl or .parquet, the first two also
            as .gz or .zst. They are encoded once, into the cache. PATH=WEIGHT mixes several.
        text_field: the field of .jsonl and .parquet with the text. Not given: text.
        validation: what is held out of the data: the last tenth (tail), or a tenth of the
            documents. Not given: tail.
        tokenizer: char (the default), byte, bpe:N, wordpiece:N or unigram:N for a vocabulary of N
            tokens that is learned from the text, or a tokenizer.json.
    """

    text_file: Path | None = None
    encoding: str = "utf-8"
    corpus: Literal["shakespeare", "stdlib"] | None = None
    data: Annotated[tuple[Part, ...], Argument("PATH[=WEIGHT]...", Part.parse, False)] = ()
    text_field: str | None = None
    validation: Literal["tail", "documents"] | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.tokenizer is not None and expect_spec(self.tokenizer)[0] == "file":
            object.__setattr__(self, "tokenizer", str(Path(self.tokenizer).resolve()))
        given = {"text-file": self.text_file, "corpus": self.corpus, "data": self.data}
        flags = [
            f"--{name} {_typed(value)}" for name, value in given.items() if value not in (None, ())
        ]
        if len(flags) > 1:
            raise ValueError(f"a run has one text: got {' and '.join(flags)}; leave one out")

    @property
    def files(self) -> FileCorpus:
        """The data, unread."""
        return FileCorpus(
            self.data, self.text_field or "text", self.encoding, self.validation or "tail"
        )

    def load_text(self) -> Corpus | FileCorpus:
        """Return the text; print what is odd about it."""
        if self.data:
            from .display import Activities

            return dataclasses.replace(self.files, progress=Activities())
        if self.text_file is None:
            from .display import Waiting

            with Waiting("downloading Tiny Shakespeare") as waiting:
                return load_corpus(self.corpus, progress=waiting)
        corpus = read_corpus(self.text_file, encoding=self.encoding)
        for note in corpus.notes:
            print(f"note: {note}", file=sys.stderr)
        return corpus

    def record(self, corpus: Corpus | FileCorpus) -> dict[str, Any]:
        """Return what a run's config.json says about its text."""
        of_data = {
            "data": [str(Part(part.path.resolve(), part.weight)) for part in self.data],
            "text_field": self.text_field,
            "validation": self.validation,
        }
        return {
            "text_file": None if self.text_file is None else str(self.text_file.resolve()),
            "encoding": self.encoding,
            "corpus": self.corpus,
            "tokenizer": self.tokenizer,
            **(of_data if self.data else {}),
            **corpus.record,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Source":
        """Return the data that a run's config.json names."""
        own = {name: record.get(name) for name in ("text_field", "validation")}
        return cls(
            data=tuple(map(Part.parse, record["data"])),
            encoding=record.get("encoding", "utf-8"),
            **own,
        )


@dataclasses.dataclass(frozen=True)
class Setup(Generic[C]):
    """What train, sweep and find-lr share: a text, a model and how to train it.

    Attributes:
        source: text.
        model: model.
        sizes: size and details of the model.
        training: training.
    """

    source: Source
    model: TrainSelection
    sizes: C
    training: TrainConfig

    def experiment(
        self,
        corpus: Corpus | FileCorpus | EncodedCorpus,
        *,
        tokenizer: Tokenizer | None = None,
        adapters: AdapterConfig | None = None,
        cluster: Cluster | None = None,
    ) -> Experiment:
        """Return what is trained, with the tokenizer of another run if it is given."""
        experiment = Experiment.build(
            corpus,
            self.training,
            model=self.model.model,
            sizes=given(self.sizes),
            tokenizer=tokenizer or self.source.tokenizer or "char",
            adapters=adapters,
            cluster=cluster,
        )
        if tokenizer is None:
            warn_of_losses(experiment.tokenizer)
        return experiment

    def flags(self) -> str:
        """Return the flags with which `train` makes the same run, each after a space."""
        groups: list[Any] = [self.model, self.source, self.sizes, self.training]
        fields = (
            (f, getattr(group, f.name)) for group in groups for f in dataclasses.fields(group)
        )
        flags = ""
        for field, value in fields:
            name = field.name.replace("_", "-")
            if name in ("config", "preset", "recipe", "vocab-size") or value == field.default:
                continue  # what a config, a preset or a recipe says is in the other values
            shown = "" if isinstance(value, bool) else f" {_typed(value)}"
            flags += f" --{'no-' * (value is False)}{name}{shown}"
        return flags


def warn_of_losses(tokenizer: Tokenizer, name: str = "the tokenizer") -> None:
    """Print what a tokenizer does not give back, if it loses anything."""
    if tokenizer.losses:
        lost = ", ".join(tokenizer.losses)
        print(
            f"warning: {name} does not give back every text, and its bits per byte leave out what "
            f"it loses: {lost}",
            file=sys.stderr,
        )


def _typed(value: Any) -> str:
    """Return the value of a flag as one types it."""
    return shlex.join(map(str, value if isinstance(value, tuple) else [value]))


def given(config: Any) -> dict[str, Any]:
    """Return the settings of a model that are given, without those of the text."""
    fields = dataclasses.asdict(config)
    return {k: v for k, v in fields.items() if v is not None and k not in OF_THE_TEXT}


OF_THE_TEXT = ("vocab_size", "boundary")
"""The settings of a model that follow from the text and its tokenizer."""

NOT_IN_A_FILE = ("config", "folder", "out", "overwrite", "resume", "trust_model")
"""What only a flag decides: a file may come from anywhere."""


def read_settings(path: Path, *, trust_model: bool = False) -> dict[str, Any]:
    """Return the settings of a TOML or JSON file; tables are merged, so a run's config serves.

    Raises:
        FileFormatError: if it is neither, or holds no settings by name, or one of `NOT_IN_A_FILE`.
        OSError: if it cannot be read.
        UntrustedModelError: if its model is code that may not run, see `trust`.
    """
    content = read_json(path) if path.suffix == ".json" else read_toml(path)
    if not isinstance(content, dict):
        got = type(content).__name__
        raise FileFormatError(path, f"must hold settings by name: got a {got}; write an object")
    settings: dict[str, Any] = {}
    follows = {"model_file", "adapters"}
    if isinstance(content.get("given"), dict):  # a run's config: what is in force follows from it
        follows |= {"model", "training"}
    for name, value in content.items():
        if name not in follows:
            settings |= value if isinstance(value, dict) else {name: value}
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name in NOT_IN_A_FILE:
        if name in settings:
            flag = f"the flag --{name.replace('_', '-')}" if name != "folder" else "it by itself"
            raise FileFormatError(path, f"cannot set {name}; remove that, and pass {flag}")
    if settings.get("architecture") is not None:  # a run's config
        settings["model"] = settings["architecture"]
    if isinstance(settings.get("data"), list):
        settings["data"] = tuple(Part.parse(str(part)) for part in settings["data"])
    for name, value in settings.items():
        if name == "data" and isinstance(value, tuple):
            continue
        is_text = name in ("text_file", "tokenizer", "model", "init")
        if not isinstance(value, str | None if is_text else str | float | int | None):
            kind, got = "a string" if is_text else "a number or a string", type(value).__name__
            raise FileFormatError(path, f"must give {name[:40]} as {kind}: got {got}; write quotes")
    for name in ("text_file", "init"):
        if settings.get(name) is not None:
            settings[name] = Path(settings[name])
    if "model_file" in content:  # the run's folder holds a copy of it
        settings["model"] = hold_model(path, content, trust_model=trust_model)
    elif split_reference(settings.get("model") or DEFAULT)[0].endswith(".py"):
        settings["model"] = expect_own_model(path, settings["model"], trust_model=trust_model)
    if settings.get("max_seq_len") == settings.get("seq_len"):  # it follows seq_len
        settings.pop("max_seq_len", None)
    recorded = {"architecture", *OF_THE_TEXT, "dtype", "name", "from"}
    recorded |= {"source", "sha256", "characters", "bytes"}
    return {name: value for name, value in settings.items() if name not in recorded}


def new_folder(out: Path | None, kind: str) -> Path:
    """Return a folder that does not exist yet: ``out``, or if not given runs/<kind>-<time>.

    Raises:
        FileExistsError: if there is something in ``out``.
    """
    if out is not None:
        expect_free(out, overwrite=False)
        return out
    name = time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    paths = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(path for path in map(Path("runs").joinpath, paths) if not path.exists())


def split_setting(text: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE.

    Raises:
        ValueError: if one of them is missing.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"give NAME=VALUE, such as B=2: got {text!r}")
    return name, value


def setting(text: str) -> Any:
    """Read a number, true or false; anything else is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text
