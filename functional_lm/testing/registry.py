"""The library's own layers, losses and models by name, with their twins and their checks."""

import importlib
import inspect
import types
from typing import Any

from .cases import Case, cases_of
from .check import DTYPES, check
from .inputs import did_you_mean
from .oracle import JaxOracle
from .report import Report

FACTOR = 4.0
"""How much larger than XLA's the library's own float32 error may be."""


def names() -> list[str]:
    """Return the names of all layers, losses and models."""
    return [name for names in _packages().values() for name in names]


def modules(name: str) -> tuple[Any, Any]:
    """Return the module of a layer, loss or model and its JAX twin.

    Raises:
        ImportError: without jax, naming the extra to install.
        ValueError: for an unknown name, listing the known ones.
    """
    layer = layer_named(name)
    return layer, twin(layer)


def twin(value: Any) -> Any:
    """Return the JAX twin of a layer, or of a value that holds layers.

    A layer, loss or model of this library becomes its module in ``functional_lm.reference``, a
    layer from `compose.bind` the twin with those settings that its ``forward`` names, another layer
    its ``twin``, if it has one. NamedTuples, tuples, lists and dicts are mapped member by member,
    and anything else is returned as it is.

    Raises:
        ImportError: without jax, naming the extra to install.
    """
    from ..compose import Bound, keywords_of_forward, pick

    if isinstance(value, types.ModuleType) and value.__name__.startswith(_WITH_TWINS):
        try:
            return importlib.import_module(value.__name__.replace(".", ".reference.", 1))
        except ImportError as error:
            raise ImportError(
                f"the twins need jax and optax: pip install 'functional-lm[jax]' ({error})"
            ) from None
    if isinstance(value, Bound):
        layer = twin(value.layer)
        return Bound(layer, twin(pick(value.settings, keywords_of_forward(layer))))
    if isinstance(value, dict):
        return {name: twin(member) for name, member in value.items()}
    if isinstance(value, (tuple, list)):
        members = [twin(member) for member in value]
        return type(value)(*members) if hasattr(value, "_fields") else type(value)(members)
    return getattr(value, "twin", value)


_WITH_TWINS = ("functional_lm.layers.", "functional_lm.losses.", "functional_lm.models.")


def layer_named(name: str) -> Any:
    """Return the module of a layer, loss or model.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    for package, members in _packages().items():
        if name in members:
            return getattr(importlib.import_module(f"functional_lm.{package}"), name)
    hint = did_you_mean(name, names(), otherwise=f"the known ones are {', '.join(names())}")
    raise ValueError(f"unknown layer {name!r}{hint}")


def cases(name: str) -> list[Case]:
    """Return the inputs at which a layer is checked."""
    return cases_of(name, layer_named(name))


def check_layer(
    name: str,
    case: Case | str | None = None,
    *,
    seed: int = 0,
    dtypes: tuple[str, ...] = DTYPES,
) -> list[Report]:
    """Check a layer of this library against its twin.

    float32 may err up to 4 times as much as XLA.

    Args:
        name: of a layer, loss or model.
        case: one of `cases`, or its label. Not given: all of them.
        seed: of the draws.
        dtypes: those to check.

    Returns:
        A report for each case.

    Raises:
        ImportError: without jax.
        ValueError: for an unknown name or label, listing the known ones.
    """
    selected = [case] if isinstance(case, Case) else cases(name)
    if isinstance(case, str):
        labels = [known.label for known in selected]
        if case not in labels:
            raise ValueError(f"{name} has no case {case!r}; it has {', '.join(labels)}")
        selected = [selected[labels.index(case)]]
    layer, reference = modules(name)
    return [
        check(
            f"{name} ({one.label})",
            layer,
            one.params,
            one.x,
            reference=JaxOracle(reference, twin(one.keywords), holds_arrays=False),
            keywords=one.keywords,
            seed=seed,
            dtypes=dtypes,
            factor=FACTOR,
            refusals=True,
            reproduce=f"check_layer({name!r}, {one.label!r}, seed={seed})",
        )
        for one in selected
    ]


def _packages() -> dict[str, list[str]]:
    found = {}
    for package in ("layers", "losses", "models"):
        module = importlib.import_module(f"functional_lm.{package}")
        members = {name: getattr(module, name) for name in module.__all__}
        is_layer = {n: inspect.ismodule(m) and hasattr(m, "vjp") for n, m in members.items()}
        found[package] = [name for name in members if is_layer[name]]
    return found
