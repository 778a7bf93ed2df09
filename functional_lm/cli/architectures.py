"""What the flags need to know of an architecture."""

import dataclasses
from typing import Any

from .. import models

DEFAULT = "llama"


def given(config: Any) -> dict[str, Any]:
    """Return the fields that are given, without the vocabulary."""
    fields = dataclasses.asdict(config)
    return {k: v for k, v in fields.items() if v is not None and k != "vocab_size"}


def find(reference: Any) -> Any:
    """Return the architecture of that name; see `models.find`."""
    if not isinstance(reference, str):
        raise TypeError(f"model must be a name or FILE.py:NAME: got {reference!r}")
    return models.find(reference)


def without_derived(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a run's settings what follows from others, so that a flag takes it along."""
    architecture = settings.get("architecture") or DEFAULT
    try:
        Config = models.find(architecture).Config
        names = {field.name for field in dataclasses.fields(Config)}
        config = Config(**{name: value for name, value in settings.items() if name in names})
    except (TypeError, ValueError):  # which is reported where the settings are used
        return settings
    derived: set[str] = set()
    for field in dataclasses.fields(Config):
        if field.default is None:
            open_ = dataclasses.replace(config, **{field.name: None})
            if open_.resolved() == config.resolved():
                config, derived = open_, derived | {field.name}
    return {name: value for name, value in settings.items() if name not in derived}
