"""The folder of a run: how it gets its name, what it holds, and how a run is read from it.

    model.safetensors   the weights with the lowest validation loss
    adapters.safetensors  of them the adapters alone, if the run tunes another one
    last.safetensors    the weights of the last step
    config.json         the model's config, the settings, the text, the model's file if it has one
    tokenizer.json      the tokenizer
    model.py            a copy of the file that a custom model came from, beside copies of the
                        files in its folder that it imported; see `trust` for when they run
    metrics.jsonl       one object for each step
    sample.txt          texts that the model wrote
    evaluation.json     the loss of the best weights on all held-out tokens, if that is another
    checkpoints/        where the run can resume from, see `checkpoint`
    .lock               the process that trains here, see `lock`

The folder appears as a whole, and so does each file; metrics.jsonl then grows line by line.

A new run is built in ``.NAME.new`` beside its folder, while the lock ``.NAME.starting`` is held:
whoever holds it owns the name. It is renamed into place once complete. What a killed start leaves,
the next one removes.
"""

import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import pytree
from ..contract import Tree, expect_choice, expect_dtype
from ..files import FileFormatError, parse_json, read_json, sync_folder, write_atomic
from ..models import LanguageModel
from ..models.adapting import AdapterConfig, configs, with_adapters
from ..models.loading import architectures, find, of_config, split_reference
from ..models.source import source
from ..text import Tokenizer, fingerprint, load_tokenizer
from .adapters import save_adapters
from .checkpoint import load_checkpoint, save_checkpoint
from .lock import LOCK_FILE, RunLockedError, hold, run_lock
from .metrics import read_metrics
from .trust import MODEL_SOURCE, hold_model, record_model

BEST_FILE, LAST_FILE = "model.safetensors", "last.safetensors"
ADAPTERS_FILE = "adapters.safetensors"
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
METRICS_FILE, SAMPLE_FILE = "metrics.jsonl", "sample.txt"
EVALUATION_FILE = "evaluation.json"

_NEW, _OLD, _STARTING = ".new", ".old", ".starting"


class Run(NamedTuple):
    """A run as `open_run` reads it."""

    model: LanguageModel
    params: Tree
    tokenizer: Tokenizer
    settings: dict[str, Any]  # all that config.json holds
    folder: Path

    def _repr_html_(self) -> str | None:
        """Show the curves in a notebook."""
        from ..reports.plots import as_html

        return as_html(self.folder.name, read_metrics(self.folder / METRICS_FILE))


# The name.


@contextlib.contextmanager
def new_run(
    folder: str | Path | None, held: contextlib.ExitStack, *, overwrite: bool = False
) -> Iterator[tuple[Path, Path]]:
    """Own a name, and give the folder to write a new run to; it is renamed into place at the end.

    Args:
        folder: the name. None: the first free one of runs/<time>, runs/<time>-2, ...
        held: gets the run's lock, which is held from before the folder has its name.
        overwrite: replace the run that is there, with all that its folder holds. It stays until
            the new one is complete.

    Yields:
        The name, and the folder to write to.

    Raises:
        FileExistsError: if there is something under that name, and not overwrite, or no run.
        RunLockedError: if another process trains there, or starts to.
        OSError: if it cannot be written; nothing is left behind.
    """
    with contextlib.ExitStack() as owned:
        name = _own_free_name(owned) if folder is None else Path(folder)
        target = _resolved(name)
        if folder is not None:
            _remove_abandoned(target.parent)
            owned.enter_context(_owned(target, timeout=1.0))
        expect_free(name, overwrite=overwrite)
        if replaces := target.exists():
            owned.enter_context(run_lock(target))
        new = _beside(target, _NEW)
        try:
            try:
                new.mkdir()
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(name)) from None
            if os.name != "nt":
                held.enter_context(run_lock(new))
            yield name, new
            if not (replaces and _exchange(new, target)):
                if replaces:
                    target.rename(_beside(target, _OLD))
                new.rename(target)  # fails if somebody else made a folder there meanwhile
            sync_folder(target.parent)
            if os.name == "nt":  # cannot rename a folder with an open file
                held.enter_context(run_lock(target))
        except BaseException:
            held.close()
            raise


def expect_free(folder: Path, *, overwrite: bool) -> None:
    """Require that there is nothing under a name, or with overwrite a run that nobody trains.

    Raises:
        FileExistsError: if there is.
        RunLockedError: if another process trains there.
    """
    if not os.path.lexists(folder):
        return
    if (folder / LOCK_FILE).is_file():
        with run_lock(folder):
            pass
    if not (folder / CONFIG_FILE).is_file():
        raise FileExistsError(f"the folder of a run must be new: {folder} exists; pass another")
    if not overwrite:
        raise FileExistsError(
            f"the folder of a run must be new: {folder} holds one; resume it with --resume "
            f"{folder}, replace it with --overwrite, or pass another"
        )


def expect_run(folder: Path) -> Path:
    """Return the path of a run's config.json.

    Raises:
        FileNotFoundError: if the folder has none.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        target = _resolved(folder)
        if _beside(target, _OLD).exists():  # an --overwrite was killed between two renames
            with _owned(target):
                pass
    if not path.is_file():
        raise FileNotFoundError(
            f"a run folder must hold {CONFIG_FILE}: {folder} does not; pass what --out named"
        )
    return path


@contextlib.contextmanager
def _owned(target: Path, *, timeout: float = 0.0) -> Iterator[None]:
    """Own the name of a folder, and clean up what killed starts left under it, before and after."""
    starting = _beside(target, _STARTING)
    target.parent.mkdir(parents=True, exist_ok=True)
    with hold(starting, target, timeout=timeout):
        _clean(target)
        try:
            yield
        finally:
            _clean(target)
            with contextlib.suppress(OSError):
                starting.unlink()  # while it is held: nobody else can have taken it meanwhile


def _clean(target: Path) -> None:
    """Give a name whose owner was killed its run back, and remove unfinished and replaced ones."""
    new, old = _beside(target, _NEW), _beside(target, _OLD)
    if old.exists() and not target.exists():
        old.rename(target)
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)


def _own_free_name(owned: contextlib.ExitStack) -> Path:
    """Own the first name under runs/ of the present second that nobody has or owns."""
    stem = time.strftime("%Y%m%d-%H%M%S")
    _remove_abandoned(_resolved(Path("runs")))
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        name = Path("runs") / (stem + suffix)
        target = _resolved(name)
        if not os.path.lexists(target):
            with contextlib.suppress(RunLockedError), contextlib.ExitStack() as taken:
                taken.enter_context(_owned(target))
                if not os.path.lexists(target):
                    owned.enter_context(taken.pop_all())
                    return name
    raise AssertionError


def _remove_abandoned(parent: Path) -> None:
    """Clean up after the killed starts in a folder."""
    for path in list(parent.iterdir()) if parent.is_dir() else []:
        name = path.name.removeprefix(".").removesuffix(_STARTING)
        if path.name == f".{name}{_STARTING}":
            with contextlib.suppress(OSError), _owned(parent / name):
                pass


def _resolved(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}{what}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    try:
        library = ctypes.CDLL(None)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            return library.renamex_np(*names, ctypes.c_uint(2)) == 0
        return library.renameat2(-100, names[0], -100, names[1], ctypes.c_uint(2)) == 0
    except (AttributeError, OSError, TypeError):  # TypeError: no name means no library on Windows
        return False


# The files.


def save_run(
    folder: str | Path,
    params: Tree,
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    settings: dict[str, Any] | None = None,
) -> None:
    """Write a run; the folder is made if need be. The file of a custom model is copied.

    Args:
        folder: where to.
        params: the weights, written as the best.
        model: the language model.
        tokenizer: of the text.
        settings: what else config.json shall hold.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = str(pytree.leaves(params)[0].dtype)
    file, name = split_reference(model.name)
    custom = Path(file).suffix == ".py"
    content: dict[str, Any] = {"architecture": None if custom else model.name}
    content["model"] = dataclasses.asdict(model.config)
    content |= {"dtype": dtype, **(settings or {})}
    if model.adapted is not None:
        content["adapters"] = [dataclasses.asdict(one) for one in configs(model)]
    if custom:
        files = dict(source(file).files)  # the bytes that ran
        main = files.pop(Path(file).name)
        if MODEL_SOURCE in files:
            raise ValueError(
                f"the folder of a run has its model in {MODEL_SOURCE}: {file} imports another "
                "file of that name; rename it"
            )
        files[MODEL_SOURCE] = main
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / path, data)
        content["model_file"] = record_model(name, Path(file).resolve(), files, content["model"])
    write_atomic(folder / TOKENIZER_FILE, tokenizer.to_json())
    text = json.dumps(content, indent=2) + "\n"
    try:
        parse_json(text, CONFIG_FILE)
    except FileFormatError as error:
        raise ValueError(
            f"the settings of a run must be readable again: {error.reason.partition(';')[0]}; "
            "rename the file that has no Unicode name"
        ) from None
    write_atomic(folder / CONFIG_FILE, text)
    save_weights(folder / BEST_FILE, params, model, tokenizer)


def save_weights(path: Path, params: Tree, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Write weights, and which config and tokenizer they go with; see `save_checkpoint`."""
    save_checkpoint(path, params, metadata=_goes_with(model, tokenizer))
    if model.adapted is not None and path.name == BEST_FILE:
        save_adapters(path.with_name(ADAPTERS_FILE), model, params)


def _goes_with(model: LanguageModel, tokenizer: Tokenizer) -> dict[str, Any]:
    config = json.loads(json.dumps(dataclasses.asdict(model.config)))
    adapters = {"adapters": [dataclasses.asdict(one) for one in configs(model)]}
    return {
        "config": config,
        "tokenizer_sha256": fingerprint(tokenizer),
        **(adapters if model.adapted is not None else {}),
    }


def open_run(folder: str | Path, weights: str = BEST_FILE, *, trust_model: bool = False) -> Run:
    """Return a run with its model.

    A custom model is run from the copy of its file in the folder.

    Args:
        folder: of the run.
        weights: the name of the weights' file.
        trust_model: run the code of a model that was not made here, see `trust`.

    Raises:
        UntrustedModelError: for such code without trust_model.
        OSError: if a file is missing or cannot be read.
        FileFormatError: if one is damaged, or does not fit the others.
    """
    folder = Path(folder)
    settings = read_config(folder)
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    model, dtype = _model_of(settings, folder, trust_model)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise FileFormatError(
            folder,
            f"must hold one model: its tokenizer has {tokenizer.vocab_size} tokens, its "
            f"config {model.config.vocab_size}; the files come from different runs",
        )
    path = folder / weights
    if model.n_parameters > path.stat().st_size:
        raise FileFormatError(  # before its parameters are made, since they may fit no memory
            path,
            f"must hold the model of its config: that has {model.n_parameters:,} parameters, "
            f"more than the file has bytes; restore {CONFIG_FILE} or the file",
        )
    params, metadata = load_checkpoint(path, like=model.init((0,), dtype=dtype))
    goes_with = _goes_with(model, tokenizer)
    if isinstance(written := metadata.get("config"), dict):  # maybe of an older version
        newer = {k: v for k, v in goes_with["config"].items() if k not in settings["model"]}
        metadata = {**metadata, "config": {**newer, **written}}
    for name, value in goes_with.items():
        if metadata.get(name, value) != value:
            raise FileFormatError(
                folder,
                f"must hold one model: {weights} is of another {name.partition('_')[0]}; restore "
                f"{CONFIG_FILE} and {TOKENIZER_FILE}",
            )
    return Run(model, params, tokenizer, settings, folder)


def _model_of(
    settings: dict[str, Any], folder: Path, trust_model: bool
) -> tuple[LanguageModel, Any]:
    """Return the model that config.json describes, and the dtype of its parameters."""
    path = folder / CONFIG_FILE
    try:
        if "model_file" in settings:
            reference = hold_model(path, settings, trust_model=trust_model)
        else:
            reference = settings["architecture"]
            expect_choice("architecture", reference, architectures())
        dtype = expect_dtype(settings.get("dtype", "float32"))
        model = of_config(reference, find(reference), settings["model"])
        for adapters in settings.get("adapters", []):
            model = with_adapters(model, AdapterConfig(**adapters))
        return model, dtype
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:300]
        reason = f"is not the config of a run: {fault}; restore it from a copy"
        raise FileFormatError(path, reason) from None


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return what a run's config.json holds, unchecked.

    Raises:
        OSError: if there is none, or it cannot be read.
        FileFormatError: if it is damaged.
    """
    path = expect_run(Path(folder))
    content = read_json(path)
    if not isinstance(content, dict):
        raise FileFormatError(path, "is not the config of a run: it must hold settings by name")
    return content


def change_settings(folder: str | Path, **tables: dict[str, Any]) -> None:
    """Write other tables of settings to a run's config.json.

    Raises:
        OSError: if it cannot be read or written.
        FileFormatError: if it is damaged.
    """
    content = read_config(folder)
    for name in tables.keys() & content.keys():
        if not isinstance(content[name], dict):
            path = Path(folder) / CONFIG_FILE
            raise FileFormatError(path, f"must hold its {name} settings by name; restore it")
    if (changed := content | tables) != content:
        write_atomic(Path(folder) / CONFIG_FILE, json.dumps(changed, indent=2) + "\n")


def vocab_size_of(config: dict[str, Any]) -> int | None:
    """Return the size of the vocabulary in what `read_config` returned, if it has one."""
    size = table_of(config, "model").get("vocab_size")
    return size if isinstance(size, int) else None


def table_of(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table of a config, {} if it has anything else there."""
    table = config.get(name)
    return table if isinstance(table, dict) else {}
