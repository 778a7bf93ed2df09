"""What a checkpoint says of the run that it belongs to, and whether another is the same."""

import dataclasses
import platform
from typing import Any

import numpy as np

from .. import __version__
from ..models.adapting import configs
from ..speed import runtime
from ..text import fingerprint
from ..training.experiment import Experiment
from ..training.settings import TrainConfig

MAY_CHANGE = ("steps", "epochs")
"""Settings that may differ in a resumed run: how long it trains."""


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return config, settings, tokenizer, the hash of the text and the environment, for JSON."""
    process = runtime.info()
    return {
        "config": dataclasses.asdict(experiment.config),
        "settings": {
            **dataclasses.asdict(experiment.settings),
            **{
                name: value
                for one in configs(experiment.model)
                for name, value in one.given.items()
            },
            "lr": experiment.settings.peak_lr,
            "trained": experiment.trained,
        },
        "tokenizer": {
            "type": experiment.tokenizer.kind,
            "sha256": fingerprint(experiment.tokenizer),
        },
        "text_sha256": experiment.text_sha256,
        "environment": {  # on which the last bits depend
            "functional_lm": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "BLAS": process.blas,
            "BLAS kernel": process.kernel,
            "BLAS threads": process.blas_threads,
        },
    }


def expect_same_run(before: dict[str, Any], experiment: Experiment) -> list[str]:
    """Require that a resumed run keeps the settings that it began with.

    Args:
        before: the `identity` in a checkpoint.
        experiment: the one that shall go on. A setting that the version of the run did not have
            must have its default.

    Returns:
        What differs without being an obstacle, a sentence each.

    Raises:
        ValueError: naming what differs.
    """
    now = identity(experiment)
    if not isinstance(before, dict) or not all(
        isinstance(before.get(name), type(now[name])) for name in now
    ):
        raise ValueError("a checkpoint must say which run it is of: it does not; restore it")
    if before["text_sha256"] != now["text_sha256"]:
        raise ValueError(
            "a resumed run needs the text that it began with: got one with the SHA-256 "
            f"{now['text_sha256'][:12]}… instead of {before['text_sha256'][:12]}…; restore it"
        )
    if before["tokenizer"].get("sha256", now["tokenizer"]["sha256"]) != now["tokenizer"]["sha256"]:
        raise ValueError("a resumed run needs the tokenizer that it began with: restore it")
    given = experiment.model.given or experiment.config
    newer = dataclasses.asdict(TrainConfig())  # settings that the version of the run did not have
    for field in dataclasses.fields(given):
        is_default = getattr(given, field.name) == field.default
        newer[field.name] = now["config"][field.name] if is_default else field.default
    recorded = {**newer, **before["config"], **before["settings"]}
    settings = recorded, {**now["config"], **now["settings"]}
    longer = [change for name, change in _changes(*settings) if name in MAY_CHANGE]
    other = [change for name, change in _changes(*settings) if name not in MAY_CHANGE]
    if other:
        raise ValueError(
            f"a resumed run keeps its settings, but for {' and '.join(MAY_CHANGE)}: "
            f"{', '.join(other)}; leave that out, or start a new run"
        )
    notes = []
    if longer:
        notes.append(f"{', '.join(longer)}: the learning rate follows the new length from here on")
    changed = [change for _, change in _changes(before["environment"], now["environment"])]
    if changed:
        notes.append(f"{', '.join(changed)}: the last bits differ from an uninterrupted run's")
    return notes


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, f"{name} was {before.get(name)} and is {now[name]}")
        for name in now
        if before.get(name) != now[name]
    ]
