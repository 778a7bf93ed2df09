"""Wrong forward modes are found, and named at the leaf."""

import types

import numpy as np
import pytest

from functional_lm.contract import WithState
from functional_lm.layers import attention, causal_convolution, layer_norm, linear, rms_norm
from functional_lm.models import mlp
from functional_lm.numerics import rows
from functional_lm.testing import check_vjp, registry

X = np.linspace(-2, 2, 10).reshape(2, 5)


def findings(layer, jvp):
    """Return what a check without a reference says of a layer with another jvp."""
    case = registry.cases(layer.__name__.rpartition(".")[2])[0]
    changed = types.SimpleNamespace(**vars(layer) | {"jvp": jvp})
    report = check_vjp(changed, case.params, case.x, keywords=case.keywords, own_inputs=False)
    return report.findings


def without_mean(residuals, t):
    x_hat, rstd, scale = residuals
    return rstd * t[1] * scale + x_hat * t[0]["scale"]


def without_scale(residuals, t):
    still = {name: leaf * 0 for name, leaf in t[0].items()}
    return layer_norm.jvp(residuals, (still, t[1]))


def transposed(residuals, t):
    x, weight, _ = residuals
    return (rows(t[1]) @ (weight + weight[::-1]) / 2 + rows(x) @ t[0]["weight"]).reshape(
        *x.shape[:-1], -1
    )


def other_sign(residuals, t):
    t_params, t_x = t
    return attention.jvp(residuals, (t_params, t_x._replace(v=-t_x.v)))


def state_lost(residuals, t):
    y, state = causal_convolution.jvp(residuals, t)
    return WithState(y, state * 0)


WRONG = {
    "y, x": (rms_norm, without_mean),
    "y, params.bias and params.scale": (layer_norm, without_scale),
    "y, x ": (linear, transposed),
    "y, x.v": (attention, other_sign),
    "y.state, x.x": (causal_convolution, state_lost),
}


@pytest.mark.parametrize("places", WRONG)
def test_a_wrong_jvp_is_named_at_the_leaf_and_its_tangents(places):
    layer, wrong = WRONG[places]
    assert not findings(layer, layer.jvp)
    leaf, tangents = places.strip().split(", ")
    found = findings(layer, wrong)
    assert {(f.leaf, f.dtype, f.cause) for f in found} == {
        (leaf, "float64", "jvp"),
        (leaf, "float32", "jvp"),
    }
    assert f"at {leaf} for the tangent of {tangents}: " in found[0].message


def square(jvp=lambda x, t: 2 * x * t[1], vjp=lambda x, g: ({}, 2 * x * g), **settings):
    layer = types.SimpleNamespace(forward=lambda p, x: (x * x, x), vjp=vjp, jvp=jvp)
    settings = {"reference": lambda p, x: x * x} | settings
    return check_vjp(layer, {}, X, **settings)


CALLS: list[int] = []
CONDUCT = {
    "jvp raised ZeroDivisionError": lambda x, t: 1 / 0,
    "jvp: y must have shape (2, 5): got (5,)": lambda x, t: (2 * x * t[1]).sum(axis=0),
    "jvp: y is float64 where the inputs are float32": lambda x, t: np.float64(2) * x * t[1],
    "jvp: y must be an array: got a tuple of 2": lambda x, t: ({}, 2 * x * t[1]),
    "a second jvp of the same residuals and t gives other bits": lambda x, t: (
        CALLS.append(1) or 2 * x * t[1] * (1 + 1e-13 * len(CALLS))
    ),
    "zero t does not give zero": lambda x, t: 2 * x * t[1] + x.dtype.type(1e-30),
    "jvp is not linear in t": lambda x, t: 2 * x * t[1] * np.sign(t[1]),
    "jvp writes to t": lambda x, t: np.multiply(2 * x, t[1], out=t[1]),
    "jvp is wrong in float64 at y for the tangent of x": lambda x, t: 2 * x * t[1] * np.nan,
}


@pytest.mark.parametrize("message", CONDUCT)
def test_a_jvp_that_breaks_the_contract_is_found(message):
    report = square(CONDUCT[message])
    assert message in " ".join(f.message for f in report.findings)
    assert set(report.causes.values()) <= {"jvp", "overwritten", "not finite"}


def test_the_reference_judges_where_there_is_one():
    assert square()
    (finding, _) = square(lambda x, t: x * t[1]).findings
    assert finding.leaf == "y"


def test_a_wrong_gradient_does_not_blame_the_jvp():
    report = square(vjp=lambda x, g: ({}, 3 * x * g))
    assert {f.check for f in report.findings} == {"accuracy"}


def test_a_layer_inside_without_a_jvp_is_a_note():
    case = registry.cases("mlp")[0]
    plain = types.SimpleNamespace(forward=linear.forward, vjp=linear.vjp)
    keywords = {"up": plain, "own_inputs": False}
    report = check_vjp(mlp, case.params, case.x, **keywords)
    assert report
    assert report.notes == ["jvp was not checked, since a layer inside has none"]
    assert "jvp raised AttributeError" in str(
        check_vjp(mlp, case.params, case.x, strict=True, **keywords)
    )
