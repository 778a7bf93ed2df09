"""The library's own layers, losses and models by name, with their twins and their checks."""

import importlib
from collections.abc import Callable
from typing import Any

from .cases import Case, cases_of
from .check import check
from .report import Report


def names() -> list[str]:
    """Return the names of all layers, losses and models."""
    return [name for names in _packages().values() for name in names]


def modules(name: str) -> tuple[Any, Any]:
    """Return the module of a layer, loss or model and its JAX twin.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    for package, members in _packages().items():
        if name in members:
            path = f"{package}.{name}"
            twin = importlib.import_module(f"functional_lm.reference.{path}")
            return importlib.import_module(f"functional_lm.{path}"), twin
    raise ValueError(f"unknown layer {name!r}; the known ones are {', '.join(names())}")


def cases(name: str) -> list[Case]:
    """Return the inputs at which a layer is checked."""
    module, _ = modules(name)
    return cases_of(name, module)


def check_layer(name: str, case: Case | None = None) -> list[Report]:
    """Check a layer of this library against its twin at one case, or at all of them.

    float32 may err up to 4 times as much as XLA.
    """
    layer, twin = modules(name)
    return [
        check(
            f"{name} ({case.label})",
            layer,
            case.params,
            case.x,
            reference=twin,
            cotangent=None,
            seed=0,
            dtypes=("float64", "float32"),
            factor=4.0,
            keywords=case.keywords,
        )
        for case in ([case] if case else cases(name))
    ]


def certify(name: str) -> Callable[[Case], None]:
    """Return a pytest function that checks a layer, one test for each case.

    In a test file::

        test_certified = certify("rms_norm")
    """
    import pytest

    @pytest.mark.parametrize("case", cases(name), ids=str)
    def test_certified(case: Case) -> None:
        for report in check_layer(name, case):
            report.raise_if_failed()

    return test_certified


def _packages() -> dict[str, list[str]]:
    packages = ("layers", "losses", "models")
    return {p: importlib.import_module(f"functional_lm.{p}").__all__ for p in packages}
