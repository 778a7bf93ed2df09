"""The checker without a reference, and so without JAX."""

import sys
import types

import numpy as np
import pytest

from functional_lm import models
from functional_lm.layers import silu
from functional_lm.testing import cases, check_vjp, names, registry

MODELS = set(models.__all__) - {"mlp"}  # made of the layers
LAYERS = [name for name in names() if name not in MODELS]
CASES = [case for name in LAYERS for case in cases(name)[:1]]  # JAX judges the others
X = np.linspace(-3, 3, 7)


@pytest.fixture(autouse=True)
def _no_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.layer}, {case.label}")
def test_every_gradient_is_the_difference_quotient(case):
    layer = registry.layer_named(case.layer)
    report = check_vjp(
        layer, case.params, case.x, dtypes=("float64",), own_inputs=False, **case.keywords
    )
    report.raise_if_failed()


@pytest.mark.parametrize("name", ["rms_norm", "linear", "softmax", "cross_entropy", "swiglu"])
def test_float32_is_judged_by_what_rounding_the_inputs_does(name):
    layer = registry.layer_named(name)
    for case in cases(name)[:3]:
        report = check_vjp(layer, case.params, case.x, own_inputs=False, **case.keywords)
        report.raise_if_failed()
        assert all(leaf.float32_error is not None for leaf in report.leaves.values())
        assert all(leaf.xla_error is None for leaf in report.leaves.values())


def sine(params, x):
    return params["w"] * np.sin(x), (params["w"], x)


def sine_vjp(residuals, g):
    w, x = residuals
    return {"w": np.sum(g * np.sin(x))}, g * w * np.cos(x)


def test_an_analytic_forward_is_differentiated_by_complex_steps():
    layer = types.SimpleNamespace(forward=sine, vjp=sine_vjp)
    report = check_vjp(layer, {"w": np.array(2.0)}, X)
    report.raise_if_failed()
    assert report.oracle == "complex steps of the layer's own forward"
    assert all(leaf.float64_limit < 1e-10 for leaf in report.leaves.values())


def test_a_forward_that_is_not_analytic_is_differentiated_by_differences():
    layer = types.SimpleNamespace(
        forward=lambda p, x: (x * x.real, x),  # complex goes through it, and gives half the slope
        vjp=lambda x, g: ({}, 2 * g * x),
    )
    report = check_vjp(layer, {}, X)
    report.raise_if_failed()
    assert report.oracle == "five-point differences of the layer's own forward"


def test_a_large_input_is_looked_at_along_random_directions():
    x = np.random.default_rng(0).standard_normal((61, 67))
    layer = types.SimpleNamespace(forward=lambda p, x: (np.abs(x) ** 3, x), vjp=cubic_vjp)
    assert check_vjp(layer, {}, x, dtypes=("float64",))
    layer.vjp = lambda x, g: ({}, cubic_vjp(x, g)[1] * (1 + 1e-6))
    assert not check_vjp(layer, {}, x, dtypes=("float64",))


def cubic_vjp(x, g):
    return {}, g * 3 * x * np.abs(x)


def test_a_kink_beside_an_input_raises_no_alarm():
    layer = types.SimpleNamespace(
        forward=lambda p, x: (np.maximum(x, 0), x), vjp=lambda x, g: ({}, g * (x > 0))
    )
    x = np.array([-1.0, -1e-3, 1e-4, -1e-5, 0.3, 2.0])
    check_vjp(layer, {}, x).raise_if_failed()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda d_x: -d_x,
        lambda d_x: d_x * (1 + 1e-6),
        lambda d_x: d_x * 3,
        lambda d_x: d_x[:, None],
        lambda d_x: None,
    ],
)
def test_a_wrong_gradient_is_found(wrong):
    layer = types.SimpleNamespace(
        forward=silu.forward, vjp=lambda residuals, g: ({}, wrong(silu.vjp(residuals, g)[1]))
    )
    assert list(check_vjp(layer, {}, X).causes) == ["x"]
