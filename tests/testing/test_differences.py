"""A second opinion on every layer and the whole model: five-point differences, without JAX."""

import types

import numpy as np
import pytest

from functional_lm.layers import silu
from functional_lm.testing import cases, check_differences, names, registry

CASES = [case for name in names() for case in cases(name)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.layer}, {case.label}")
def test_every_gradient_is_the_difference_quotient(case):
    layer, _ = registry.modules(case.layer)
    report = check_differences(layer, case.params, case.x, **case.keywords)
    assert not report.findings
    assert all(leaf.ok for leaf in report.leaves.values()), str(report)


@pytest.mark.parametrize("d_x", [np.zeros((7, 1)), None])
def test_a_gradient_of_another_shape_is_found(d_x):
    wrong = types.SimpleNamespace(forward=silu.forward, vjp=lambda residuals, g: ({}, d_x))
    report = check_differences(wrong, {}, np.linspace(-3, 3, 7))
    assert "d_x must" in report.findings[0]


@pytest.mark.parametrize("factor", [-1.0, 1 + 1e-6, 3.0])
def test_a_wrong_gradient_is_found(factor):
    def vjp(residuals, g):
        d_params, d_x = silu.vjp(residuals, g)
        return d_params, d_x * factor

    wrong = types.SimpleNamespace(forward=silu.forward, vjp=vjp)
    assert not check_differences(wrong, {}, np.linspace(-3, 3, 7)).ok
