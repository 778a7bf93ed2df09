"""Checks as pytest tests, with one test id for each case, dtype and check."""

from collections.abc import Callable, Sequence
from typing import Any

from .cases import Case
from .check import DTYPES, check_vjp
from .registry import cases as registered_cases
from .registry import check_layer
from .report import CHECKS, Report

__all__ = ["certify", "faults"]


def certify(
    layer: Any,
    *,
    reference: Any = None,
    cases: Sequence[Case] | None = None,
    dtypes: Sequence[str] = DTYPES,
    refusals: bool = False,
) -> Callable[[Case, str, str], None]:
    """Return a pytest function that checks a layer; a case is run once for all of its ids.

    In a test file of a layer of your own::

        test_squared_relu = certify(
            squared_relu,
            reference=lambda params, x: params["scale"] * jax.nn.relu(x) ** 2,
            cases=[Case("squared_relu", "primes", {"scale": scale}, x, {})],
        )

    gives the ids ``primes-float64-contract``, ``primes-float64-purity``, ... of `report.CHECKS`.

    Args:
        layer: anything with ``forward`` and ``vjp``, or the name of a layer of this library.
        reference: as in `check_vjp`; not for a name.
        cases: the inputs; not for a name.
        dtypes: those to check.
        refusals: as in `check_vjp`; a layer of this library always has to pass them.

    Raises:
        ValueError: for no cases, or for a name with a reference or cases.
    """
    import pytest

    if isinstance(layer, str):
        if reference is not None or cases is not None:
            raise ValueError(
                f"{layer!r} has a reference and cases of its own: got others; leave them out, or "
                "pass the layer itself"
            )
        cases = registered_cases(layer)
    if not cases:
        raise ValueError("certify needs at least one case: got none; pass cases=[Case(...)]")
    ours = isinstance(layer, str)
    asked = {"refusals": refusals or ours, "jvp": ours or hasattr(layer, "jvp"), "bitwise": False}
    checks = [c for c in CHECKS if asked.get(c, True)]
    reports: dict[str, Report] = {}

    def report_of(case: Case) -> Report:
        if case.label not in reports:
            if isinstance(layer, str):
                (reports[case.label],) = check_layer(layer, case, dtypes=tuple(dtypes))
            else:
                reports[case.label] = check_vjp(
                    layer,
                    case.params,
                    case.x,
                    reference=reference,
                    dtypes=tuple(dtypes),
                    refusals=refusals,
                    **case.keywords,
                )
        return reports[case.label]

    @pytest.mark.parametrize("check", checks)
    @pytest.mark.parametrize("dtype", dtypes)
    @pytest.mark.parametrize("case", cases, ids=str)
    def test_certified(case: Case, dtype: str, check: str) -> None:
        report = report_of(case)
        assert not faults(report, dtype, check), str(report)

    return test_certified


def faults(report: Report, dtype: str, check: str) -> list[str]:
    """Return what one check found in one dtype; a check that was not reached is a fault."""
    found = [
        str(finding)
        for finding in report.findings
        if finding.check == check and finding.dtype in (dtype, "")
    ]
    if check == "accuracy":
        if not report.leaves:
            found.append("nothing was compared, since an earlier check ended it")
        found += [path for path, leaf in report.leaves.items() if not leaf.within(dtype)]
    return found
