"""What a layer has to refuse, and how."""

import types

import numpy as np
import pytest

from functional_lm.contract import expect_cotangent, expect_floating, expect_params, expect_shape
from functional_lm.layers import embedding, linear
from functional_lm.testing import check_vjp

PARAMS = {"weight": np.linspace(-1, 1, 15).reshape(5, 3)}
X = np.linspace(-2, 2, 10).reshape(2, 5)


def refusals(forward=None, vjp=None, refusals=True, **more):
    layer = types.SimpleNamespace(forward=forward or linear.forward, vjp=vjp or linear.vjp, **more)
    report = check_vjp(
        layer, PARAMS, X, reference=lambda params, x: x @ params["weight"], refusals=refusals
    )
    assert {finding.check for finding in report.findings} <= {"refusals"}
    assert {finding.cause for finding in report.findings} <= {"not refused"}
    return "\n".join(finding.message for finding in report.findings)


def unchecked(params, x, *checks):
    """Return what `linear` does after some of its checks."""
    for check in checks:
        check(params, x)
    weight = params["weight"]
    return np.asarray(x) @ weight, linear.Residuals(x, weight, False)


def test_a_layer_that_checks_its_inputs_passes():
    assert refusals() == ""


def test_nothing_is_asked_of_others():
    assert refusals(unchecked, refusals=False) == ""


def the_keys(params, x):
    expect_params(params, ["weight"])


def the_dtypes(params, x):
    expect_floating(x=x, weight=params["weight"])


def the_shapes(params, x):
    expect_shape("x", x, "... D", D=len(params["weight"]))


def vaguely(params, x):
    if not isinstance(params, dict) or set(params) != {"weight"}:
        raise ValueError("bad input")


UNCHECKED = {
    "forward accepts params with an unknown key: it must raise": [the_dtypes, the_shapes],
    "forward accepts None for params": [the_dtypes, the_shapes],
    "forward accepts x as float16": [the_keys, the_shapes],
    "forward accepts params.weight as int64": [the_keys, the_shapes],
    "forward accepts x as float64": [the_keys],
    "forward accepts x as a list": [the_keys, the_shapes],
    "forward accepts x of shape (2, 6) for (2, 5)": [the_keys, the_dtypes],
    "the ValueError does not: bad input": [vaguely, the_dtypes, the_shapes],
}


@pytest.mark.parametrize("says", UNCHECKED)
def test_what_is_not_refused_is_named(says):
    assert says in refusals(lambda params, x: unchecked(params, x, *UNCHECKED[says]))


def test_a_cotangent_that_is_not_refused_is_named():
    def vjp(residuals, g):
        x, weight, _ = residuals
        return {"weight": x.T @ (g + np.zeros_like(x @ weight))}, g @ weight.T

    said = refusals(vjp=vjp)
    assert "vjp accepts g as float64 for float32" in said
    assert "vjp accepts g that would broadcast along axis 0" in said

    def checked(residuals, g):
        expect_cotangent(g, (len(residuals.x), 3), residuals.x.dtype)
        return vjp(residuals, g)

    assert refusals(vjp=checked) == ""


def test_a_tangent_that_is_not_refused_is_named():
    def jvp(residuals, t):
        return t[1] @ residuals.weight + residuals.x @ t[0]["weight"]

    said = refusals(jvp=jvp)
    assert "jvp accepts t_x as float64 for float32" in said
    assert "jvp accepts t_x that would broadcast along axis 0" in said
    assert refusals(jvp=linear.jvp) == ""


def test_floating_tokens_must_be_refused():
    layer = types.SimpleNamespace(
        forward=lambda params, tokens: embedding.forward(params, np.asarray(tokens).astype(int)),
        vjp=embedding.vjp,
    )
    report = check_vjp(
        layer,
        PARAMS,
        np.array([0, 2, 1]),
        reference=lambda params, tokens: params["weight"][tokens],
        refusals=True,
    )
    assert any("accepts tokens as float32" in finding.message for finding in report.findings)
