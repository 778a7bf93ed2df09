import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.testing import check_vjp

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 5))


def layer(forward, vjp):
    return types.SimpleNamespace(forward=forward, vjp=vjp, __name__="mine")


def biased(wrong):
    """Takes the slope at x in place of x + bias."""

    def forward(params, x):
        return np.tanh(x + params["bias"]), (params, x)

    def vjp(residuals, g):
        params, x = residuals
        d_x = g * (1 - np.tanh(x if wrong else x + params["bias"]) ** 2)
        return {"bias": d_x.sum((0, 1))}, d_x

    return layer(forward, vjp)


def lookup(wrong):
    """Writes where it must add."""

    def vjp(residuals, g):
        table, ids = residuals
        d_table = np.zeros_like(table)
        if wrong:
            d_table[ids] = g
        else:
            np.add.at(d_table, ids, g)
        return {"table": d_table}, None

    return layer(lambda params, ids: (params["table"][ids], (params["table"], ids)), vjp)


def masked(wrong):
    """Lets the gradient through the mask."""

    def forward(params, x, *, mask):
        return np.where(mask, x**2, 0.0), (x, mask)

    def vjp(residuals, g):
        x, mask = residuals
        return {}, 2 * x * g * (1 if wrong else mask)

    return layer(forward, vjp)


def rotated(wrong):
    """Reads the other half of a table whose halves are equal."""

    def forward(params, x, *, table):
        return x * table, table

    def vjp(table, g):
        return {}, g * (np.roll(table, 2, axis=-1) if wrong else table)

    return layer(forward, vjp)


HALF = RNG.standard_normal((3, 2))
FRIENDLY = {
    "a bias of zero": (
        biased,
        ({"bias": np.zeros(5)}, X),
        lambda params, x: jnp.tanh(x + params["bias"]),
        {},
        "wrong point",
    ),
    "ids that do not repeat": (
        lookup,
        ({"table": X[0]}, np.array([0, 2, 1])),
        lambda params, ids: params["table"][ids],
        {},
        "scatter",
    ),
    "a mask that hides nothing": (
        masked,
        ({}, X),
        lambda params, x, *, mask: jnp.where(mask, x**2, 0.0),
        {"mask": np.ones(X.shape, bool)},
        "mask leak",
    ),
    "equal halves": (
        rotated,
        ({}, RNG.standard_normal((2, 3, 4))),
        lambda params, x, *, table: x * table,
        {"table": np.concatenate([HALF, HALF], axis=-1)},
        "",
    ),
}


@pytest.mark.parametrize("name", FRIENDLY)
def test_a_friendly_fixture_hides_nothing(name):
    make, inputs, reference, keywords, cause = FRIENDLY[name]
    right = check_vjp(make(False), *inputs, reference=reference, **keywords)
    assert right, right
    blind = check_vjp(make(True), *inputs, reference=reference, own_inputs=False, **keywords)
    assert blind, blind
    report = check_vjp(make(True), *inputs, reference=reference, **keywords)
    assert not report
    assert "not at the inputs given" in report.findings[0].message
    assert report.findings[0].check == "inputs"
    assert not cause or cause in {finding.cause for finding in report.findings}, report


@pytest.mark.parametrize(
    ("name", "slope", "x"),
    [
        ("log", lambda x: 1 / x, np.abs(X) + 0.1),  # for positive numbers only
        ("arctanh", lambda x: 1 / (1 - x * x), 0.8 * np.tanh(X)),
        ("sqrt", lambda x: 0.5 / np.sqrt(x), X * X + 0.01),
    ],
)
@pytest.mark.parametrize("with_reference", [True, False])
def test_inputs_that_a_layer_is_not_made_for_do_not_count(name, slope, x, with_reference):
    forward, reference = getattr(np, name), getattr(jnp, name)
    made = layer(lambda params, x: (forward(x), x), lambda x, g: ({}, g * slope(x)))
    report = check_vjp(
        made, {}, x, reference=(lambda params, x: reference(x)) if with_reference else None
    )
    assert report, report


def test_attention_under_other_masks_is_right():
    def forward(params, x, *, mask):
        scores = np.where(mask, np.einsum("btd,bsd->bts", x, x), -1e30)
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        return probs @ x, (x, probs)

    def vjp(residuals, g):
        x, probs = residuals
        d_probs = g @ x.swapaxes(1, 2)
        d_scores = probs * (d_probs - (d_probs * probs).sum(-1, keepdims=True))
        return {}, probs.swapaxes(1, 2) @ g + d_scores @ x + d_scores.swapaxes(1, 2) @ x

    def reference(params, x, *, mask):
        scores = jnp.where(mask, jnp.einsum("btd,bsd->bts", x, x), -1e30)
        return jax.nn.softmax(scores) @ x

    causal = np.tril(np.ones((3, 3), bool))
    report = check_vjp(layer(forward, vjp), {}, X, reference=reference, mask=causal)
    assert report, report
