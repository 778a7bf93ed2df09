"""Recipes: settings of a model and of its training that were found to work well together.

Experiment.build(text, **recipe("best", steps=1000))
"""

import dataclasses
from typing import Any

from ..contract import expect_choice
from ..models import DEFAULT, find
from .settings import TrainConfig

__all__ = ["RECIPES", "recipe", "settings_of"]

RECIPES: dict[str, dict[str, Any]] = {
    "best": {
        "model": "hybrid",
        "convolution": 4,
        "gated_attention": True,
        "n_kv_heads": 2,
        "init_scale": 0.8,
        "windows": "shuffled",
        "optimizer": "muon",
        "normuon": True,
        "lr": 0.02,
        "adam_lr": 0.01,
        "weight_decay": 0.03,
        "lr_schedule": "linear",
    },
    "lowest": {
        "model": "hybrid",
        "d_model": 256,
        "dropout": 0.2,
        "convolution": 4,
        "gated_attention": True,
        "n_kv_heads": 2,
        "init_scale": 0.8,
        "windows": "shuffled",
        "seq_len": 256,
        "steps": 2400,
        "optimizer": "muon",
        "normuon": True,
        "lr": 0.02,
        "adam_lr": 0.01,
        "weight_decay": 0.1,
        "lr_schedule": "linear",
    },
    "speedrun": {
        "model": "hybrid",
        "convolution": 4,
        "init_scale": 0.8,
        "optimizer": "muon",
        "normuon": True,
        "lr": 0.06,
        "adam_lr": 0.03,
        "lr_schedule": "linear",
        "steps": 130,
    },
}
"""By name.

best: the lowest losses of a tiny model in 2,000 steps. lowest: the lowest validation loss, with a
wider model and four times the context. speedrun: a validation loss of 1.88 in the fewest seconds.
"""


def settings_of(name: str, model: str | None = None) -> dict[str, Any]:
    """Return the settings of a recipe, without those that another model does not have.

    Raises:
        ValueError: for an unknown recipe or model.
    """
    expect_choice("recipe", name, list(RECIPES))
    settings = {"model": DEFAULT} | RECIPES[name] | ({"model": model} if model else {})
    of_training = {field.name for field in dataclasses.fields(TrainConfig)}
    of_model = {field.name for field in dataclasses.fields(find(settings["model"]).Config)}
    return {k: v for k, v in settings.items() if k in of_training | of_model | {"model"}}


def recipe(name: str | None = None, *, model: str | None = None, **settings: Any) -> dict[str, Any]:
    """Return the arguments of `Experiment.build` besides the text.

    Args:
        name: of `RECIPES`. None: the defaults.
        model: another model than the recipe's; settings that it does not have are left out.
        settings: of the training, in place of the recipe's.

    Raises:
        ValueError: for an unknown recipe or model.
    """
    own = {"model": model or DEFAULT} if name is None else settings_of(name, model)
    of_training = {field.name for field in dataclasses.fields(TrainConfig)}
    training: dict[str, Any] = {k: v for k, v in own.items() if k in of_training} | settings
    sizes = {k: v for k, v in own.items() if k not in of_training | {"model"}}
    return {"settings": TrainConfig(**training), "model": own["model"], "sizes": sizes}
