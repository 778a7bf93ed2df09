"""For pytest, with one line in ``conftest.py``::

    pytest_plugins = ["functional_lm.testing.plugin"]

Then a test fails with the whole report::

    def test_my_kernel(certified):
        certified(my_kernel, params, x, reference=my_reference)
"""

from collections.abc import Callable
from typing import Any

import pytest

from .check import check_vjp
from .report import Report

__all__ = ["certified"]


@pytest.fixture
def certified() -> Callable[..., Report]:
    """Return `check_vjp` that fails the test with the whole report."""

    def check(*args: Any, **keywords: Any) -> Report:
        report = check_vjp(*args, **keywords)
        if not report:
            pytest.fail(str(report), pytrace=False)
        return report

    return check
