"""Groups of flags that several commands share, and files of settings."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from ..contract import expect_choice
from ..files import FileFormatError, known_encoding, read_json, read_toml
from ..models import DEFAULT
from ..runs.folder import MODEL_SOURCE, expect_free
from ..text import CORPORA, Corpus, load_corpus, read_corpus
from ..training import Experiment, TrainConfig

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
        model: an architecture by name, or FILE.py:NAME for a custom model.
        preset: a size of the architecture by name. Not given: the defaults below.
        config: a TOML or JSON file of settings, such as a run's config.json; flags override it.
    """

    model: Annotated[str, Argument("NAME", positional=False)] = DEFAULT
    preset: str | None = None
    config: Path | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """The text to train on.

    Attributes:
        text_file: a file with the text.
        encoding: of the text file.
        corpus: instead of a file: shakespeare (the default; downloaded once) or stdlib, the
            docstrings of the Python standard library.
    """

    text_file: Path | None = None
    encoding: str = "utf-8"
    corpus: Literal["shakespeare", "stdlib"] | None = None

    def __post_init__(self) -> None:
        known_encoding(self.encoding)
        if self.corpus is not None:
            expect_choice("corpus", self.corpus, CORPORA)
        if self.corpus is not None and self.text_file is not None:
            raise ValueError(
                f"a run has one text: got --text-file {self.text_file} and --corpus {self.corpus}; "
                "leave one out"
            )

    def load_text(self) -> Corpus:
        """Return the text."""
        if self.text_file is None:
            return load_corpus(self.corpus or "shakespeare")
        return read_corpus(self.text_file, encoding=self.encoding)

    def record(self, corpus: Corpus) -> dict[str, Any]:
        """Return what a run's config.json says about its text."""
        return {
            "text_file": None if self.text_file is None else str(self.text_file.resolve()),
            "encoding": self.encoding,
            "corpus": self.corpus,
            "source": corpus.source,
            "characters": len(corpus.text),
            "sha256": corpus.sha256,
        }


@dataclasses.dataclass(frozen=True)
class Setup(Generic[C]):
    """What train, sweep and find-lr share: a text, a model and how to train it.

    Attributes:
        model: the model.
        sizes: the model's settings.
        source: the text.
        training: how to train.
    """

    model: Selection
    sizes: C
    source: Source
    training: TrainConfig

    def experiment(self, corpus: Corpus, **training: Any) -> Experiment:
        """Return what is trained, with other training settings where they are given."""
        return Experiment.build(
            corpus.text,
            dataclasses.replace(self.training, **training),
            model=self.model.model,
            sizes=given(self.sizes),
        )


def given(config: Any) -> dict[str, Any]:
    """Return the settings of a model that are given, without the vocabulary."""
    fields = dataclasses.asdict(config)
    return {k: v for k, v in fields.items() if v is not None and k != "vocab_size"}


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
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    if settings.get("architecture") is not None:  # a run's config
        settings["model"] = settings["architecture"]
    if "model_file" in content:  # the run's folder holds a copy of it
        file = content["model_file"]
        if not isinstance(file, dict) or not isinstance(file.get("name"), str):
            raise FileFormatError(path, "must say the name of its model_file; restore it")
        settings["model"] = f"{path.parent / MODEL_SOURCE}:{file['name']}"
    for name, value in settings.items():
        is_text = name in ("text_file", "out", "model")
        if not isinstance(value, str | None if is_text else str | float | int | None):
            kind, got = "a string" if is_text else "a number or a string", type(value).__name__
            raise FileFormatError(path, f"must give {name[:40]} as {kind}: got {got}; write quotes")
    for name in ("text_file", "out"):
        if settings.get(name) is not None:
            settings[name] = Path(settings[name])
    if settings.get("max_seq_len") == settings.get("seq_len"):  # it follows seq_len
        settings.pop("max_seq_len", None)
    recorded = {"architecture", "vocab_size", "dtype", "name", "from"}
    recorded |= {"source", "sha256", "characters"}
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
