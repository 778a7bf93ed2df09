"""The parts of the diagnosis; as a whole it is examined by the bug zoo."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.testing import check_vjp
from functional_lm.testing.explain.replay import Replays
from functional_lm.testing.explain.steps import steps_of
from functional_lm.testing.oracle import JaxOracle

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 7))


def cause(vjp, reference, x=X, forward=None, **keywords):
    """Return (cause, explanation) of d_x for a layer whose residual is x."""

    def in_float64(params, x, **keywords):
        with jax.enable_x64(True):
            return np.array(reference(params, x, **keywords)), x

    layer = types.SimpleNamespace(forward=forward or in_float64, vjp=vjp)
    report = check_vjp(layer, {}, x, reference=reference, dtypes=("float64",), **keywords)
    (finding,) = [f for f in report.findings if f.check == "accuracy"]
    return finding.cause, finding.explanation


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (1 / 7, "1/7 (7 is the size of axis 2 of x) = 0.142857"),
        (15.0, "3·5 (3 is the size of axis 0 of x, 5 is the size of axis 1 of x)"),
        (7**-0.5, "1/√7 (7 is the size of axis 2 of x)"),
        (-0.5, "−1/2"),
        (np.pi, "π = 3.14159"),
        (1.2345678, "1.23457"),
    ],
)
def test_a_constant_is_named_from_sizes(factor, says):
    kind, text = cause(lambda x, g: ({}, 2 * x * g * factor), lambda params, x: x * x)
    assert kind == "constant factor"
    assert f"every entry is {says}" in text


def test_a_constant_is_named_from_a_setting():
    kind, text = cause(
        lambda x, g: ({}, g * 0.7),
        lambda params, x, *, rate: x * 1.0,
        forward=lambda params, x, *, rate: (x * 1.0, x),
        rate=0.3,
    )
    assert kind == "constant factor"
    assert "(1 − rate)" in text


def test_a_replay_names_the_line_of_the_reference():
    def reference(params, x):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        return jnp.tanh(centred)

    def vjp(x, g):
        t = np.tanh(x - x.mean(-1, keepdims=True))
        return {}, g * (1 - t * t)

    kind, text = cause(vjp, reference)
    assert kind == "missing term"
    assert "operand 2 of `sub` in `centred = x - jnp.mean(x, axis=-1, keepdims=True)`" in text


def test_two_wrong_terms_are_found_together():
    def reference(params, x):
        return x + 2 * jnp.flip(x, 0) + 3 * jnp.flip(x, 1) + 5 * jnp.flip(x, 2)

    def vjp(x, g):
        return {}, g + 2 * np.flip(g, 0) + 5 * np.flip(g, 2) * 2 + 0 * g

    kind, text = cause(vjp, reference)
    assert kind == "wrong term"
    assert "two terms are wrong" in text
    assert "is left out" in text
    assert "is 2 times" in text


def test_what_nothing_explains_is_unknown():
    noise = RNG.standard_normal(X.shape)
    kind, text = cause(lambda x, g: ({}, g * noise), lambda params, x: jnp.sin(x))
    assert kind == "unknown"
    assert "no signature" in text


def test_a_gradient_of_the_own_forward_is_no_second_fault():
    layer = types.SimpleNamespace(
        forward=lambda params, x: (x * x * x, x), vjp=lambda x, g: ({}, 3 * x * x * g)
    )
    report = check_vjp(layer, {}, X, reference=lambda params, x: x * x)
    assert report.causes["y"] == "value"
    assert report.causes["x"] == "value"
    assert "only forward is wrong" in str(report)


def traced(function, *inputs):
    with jax.enable_x64(True):
        return list(steps_of(jax.make_jaxpr(function)(*inputs).jaxpr))


def test_inner_functions_are_taken_apart():
    names = [step.name for step in traced(lambda x: jax.nn.silu(jax.nn.relu(x)), X)]
    assert {"logistic", "mul", "max"} <= set(names)


def test_scans_are_unrolled_and_their_turns_share_a_tag():
    def carry(h, x):
        h = 0.5 * h + jnp.tanh(x)
        return h, h

    def run(x):
        return jax.lax.scan(carry, x[0], x)[1]

    steps = traced(run, X)
    tanh = [step for step in steps if step.name == "tanh"]
    assert len(tanh) == 3
    assert len({step.tag for step in tanh}) == 1


@pytest.mark.parametrize(
    "reference",
    [
        lambda params, x: jax.nn.softmax(jax.nn.gelu(x), axis=-1),
        lambda params, x: jax.lax.scan(lambda h, v: (h * v, h + v), x[0], x)[1],
        lambda params, x: jax.lax.scan(lambda h, v: (h * v, h + v), x[0], x, reverse=True)[1],
        lambda params, x: jnp.einsum("abc,adc->bd", x, jax.nn.log_softmax(x)),
        lambda params, x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
        lambda params, x: jnp.cumsum(jax.checkpoint(jnp.tanh)(x), axis=1),
    ],
)
def test_replays_that_change_nothing_give_the_gradient(reference):
    oracle = JaxOracle(reference, {})
    y = oracle.output(({}, X), "float64")
    g = RNG.standard_normal(y.shape)
    replays = Replays(oracle, ({}, X), g)
    ((gradient,),) = replays.gradients([replays.normal], ({}, X), g)
    np.testing.assert_allclose(gradient, oracle.results(({}, X), g, "float64")["x"], rtol=1e-12)


def in_half(dtype):
    """Return a layer that computes its gradient in a narrow format."""

    def vjp(x, g):
        narrow = x.astype(dtype), g.astype(dtype)
        return {}, (narrow[1] * np.cos(narrow[0])).astype(x.dtype) * 1.0000001

    return types.SimpleNamespace(forward=lambda p, x: (np.sin(x), x), vjp=vjp)


def test_half_precision_inside_is_named_as_such_and_a_wrong_formula_of_that_size_is_not():
    reference = lambda params, x: jax.numpy.sin(x)  # noqa: E731
    report = check_vjp(in_half(np.float16), {}, X, reference=reference)
    assert set(report.causes.values()) == {"precision"}, report

    def approximate(x, g):
        return {}, g * (np.cos(x) + 1e-3 * x * x)

    layer = types.SimpleNamespace(forward=lambda p, x: (np.sin(x), x), vjp=approximate)
    report = check_vjp(layer, {}, X, reference=reference)
    assert report.causes["x"] != "precision", report


def test_repeated_numbers_that_are_no_ids_are_not_taken_for_a_scatter():
    def forward(params, x, *, mask):
        return np.where(mask, x, 0.0) ** 2, (x, mask)

    def vjp(residuals, g):
        x, mask = residuals
        return {}, 2 * x * g * (1 + 0.3 * mask) * mask

    layer = types.SimpleNamespace(forward=forward, vjp=vjp)
    mask = np.array([[True, False, True, True, False]] * 3)
    reference = lambda params, x, *, mask: jax.numpy.where(mask, x, 0.0) ** 2  # noqa: E731
    report = check_vjp(layer, {}, RNG.standard_normal((3, 5)), reference=reference, mask=mask)
    assert "scatter" not in report.causes.values(), report
