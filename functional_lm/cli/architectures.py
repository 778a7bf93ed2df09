"""Architectures by name, until `models` finds them itself."""

import dataclasses
from types import SimpleNamespace
from typing import Any

from ..models import transformer
from ..models.loading import load_model

DEFAULT = "llama"


@dataclasses.dataclass(frozen=True)
class Config(transformer.Config):
    """The sizes and settings of a transformer."""

    max_seq_len: int | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check what is given."""
        transformer.Config(self.vocab_size, **given(self))


def given(config: Any) -> dict[str, Any]:
    """Return the fields that are given, without the vocabulary."""
    fields = dataclasses.asdict(config)
    return {k: v for k, v in fields.items() if v is not None and k != "vocab_size"}


def find(reference: Any) -> Any:
    """Return what a model's name stands for."""
    if not isinstance(reference, str):
        raise TypeError(f"model must be FILE.py:NAME: got {reference!r}")
    model = transformer if reference == DEFAULT else load_model(reference)
    return SimpleNamespace(Config=Config, PRESETS=transformer.PRESETS, model=model)


def without_derived(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what follows from another setting."""
    derived = {"n_kv_heads": settings.get("n_heads")}
    if isinstance(settings.get("d_model"), int):
        derived["d_ff"] = int(2.5 * settings["d_model"])
    return {k: v for k, v in settings.items() if k not in derived or v != derived[k]}
