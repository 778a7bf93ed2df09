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


def switch(params, x, *, causal):
    return np.cumsum(x, axis=1) if causal else 2 * x, causal


def power(params, x, *, power):
    return x**power, (x, power)


def scale(params, x, *, scale=1.0):
    return scale * x, scale


def rows(params, x):
    return x * params["weight"], (params, x)


def rows_vjp(residuals, g, kept=slice(None)):
    params, x = residuals
    return {"weight": (g * x)[kept].sum(axis=0)}, g * params["weight"]


def columns(params, x):
    return x * x, x


def last(params, x):
    """Adds to each query the key as far from the end."""
    ahead = x["k"].shape[1] - x["q"].shape[1]
    return x["q"] + x["k"][:, ahead:], ahead


def last_vjp(ahead, g, front=True):
    padding = (ahead, 0) if front else (0, ahead)
    return {}, {"q": g.copy(), "k": np.pad(g, [(0, 0), padding, (0, 0)])}


def sigmoid(params, x):
    small = np.exp(-abs(x))
    return np.where(x < 0, small, 1) / (1 + small), x


def reduced(params, x, *, reduction):
    return (x.mean() if reduction == "mean" else x.sum()), (x, reduction)


def reduced_vjp(residuals, g, mean=True):
    x, reduction = residuals
    return {}, np.full_like(x, g / (x.size if mean and reduction == "mean" else 1))


def shifted(params, x):
    return (x + params["bias"] if "bias" in params else x + 0), (params, x)


def shifted_vjp(residuals, g, times=1):
    return {name: times * g.sum(axis=0) for name in residuals[0]}, g.copy()


def weighted(params, x, *, weight):
    return x * (1 if weight is None else weight), weight


WIDE = RNG.standard_normal((2, 4))
CHANGES = {  # forward, the right vjp, the wrong one, (params, x), keywords
    "causal=True instead of False": (
        switch,
        lambda c, g: ({}, np.cumsum(g[:, ::-1], axis=1)[:, ::-1].copy() if c else 2 * g),
        lambda causal, g: ({}, 2 * g),
        ({}, WIDE),
        {"causal": False},
    ),
    "power=2 instead of 1": (
        power,
        lambda r, g: ({}, r[1] * r[0] ** (r[1] - 1) * g),
        lambda r, g: ({}, g * 1),
        ({}, WIDE),
        {"power": 1},
    ),
    "scale=1.3 instead of 1.0": (
        scale,
        lambda scale, g: ({}, scale * g),
        lambda scale, g: ({}, g * 1),
        ({}, WIDE),
        {},  # known by its default
    ),
    "2 instead of 1 entries in every axis of 1": (
        rows,
        rows_vjp,
        lambda r, g: rows_vjp(r, g, kept=slice(1)),
        ({"weight": X[0, 0]}, X[0, :1]),
        {},
    ),
    "5 instead of 4 entries in every axis of 4": (
        columns,
        lambda x, g: ({}, 2 * x * g),
        lambda x, g: ({}, 2 * x * g * (np.arange(x.shape[1]) < x.shape[1] // 4 * 4)),
        ({}, WIDE),
        {},
    ),
    "3 instead of 4 entries in axis 1 of x.q": (
        last,
        last_vjp,
        lambda ahead, g: last_vjp(ahead, g, front=False),
        ({}, {"q": RNG.standard_normal((2, 4, 3)), "k": RNG.standard_normal((2, 4, 3))}),
        {},
    ),
    "some entries of x 10000 times as large": (
        sigmoid,
        lambda x, g: ({}, g * np.exp(-abs(x)) / (1 + np.exp(-abs(x))) ** 2),
        lambda x, g: ({}, g * sigmoid({}, x)[0] ** 2 * np.exp(-x)),
        ({}, X[0]),
        {},
    ),
    "reduction='mean' instead of 'sum'": (
        reduced,
        reduced_vjp,
        lambda r, g: reduced_vjp(r, g, mean=False),
        ({}, WIDE),
        {"reduction": "sum"},
    ),
    "params.bias of shape (4,)": (
        shifted,
        shifted_vjp,
        lambda r, g: shifted_vjp(r, g, times=2),
        ({}, WIDE),
        {},
    ),
    "weight of shape (2, 4) instead of None": (
        weighted,
        lambda weight, g: ({}, g * (1 if weight is None else weight)),
        lambda weight, g: ({}, g * 1),
        ({}, WIDE),
        {"weight": None},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_settings_and_sizes_show_what_is_hidden(what):
    forward, right, wrong, inputs, keywords = CHANGES[what]
    reference = layer(forward, right)  # with a vjp of its own, so that nothing is compiled
    usual = {"reference": reference, "keywords": keywords}
    report = check_vjp(reference, *inputs, **usual)
    assert report, report
    assert not report.notes
    assert check_vjp(layer(forward, wrong), *inputs, own_inputs=False, **usual)
    report = check_vjp(layer(forward, wrong), *inputs, **usual)
    assert f"(with {what}; not at the inputs given)" in report.findings[0].message


def test_a_wrong_shape_counts_where_another_size_is_right():
    def vjp(x, g):
        return {}, (2 * x * g)[:, : x.shape[1] // 2 * 2]

    x = RNG.standard_normal((2, 6))
    usual = {"reference": lambda params, x: x * x, "dtypes": "float64"}
    report = check_vjp(layer(columns, vjp), {}, x, **usual)
    assert "got (2, 6) (with 7 instead of 6 entries in every axis of 6" in str(report.findings[0])
    fixed = layer(columns, lambda x, g: ({}, (2 * x * g)[:, :6].reshape(-1, 6)))  # for six alone
    assert check_vjp(fixed, {}, x, **usual)


@pytest.mark.parametrize("error", ["refused", "broken"])
def test_a_backward_may_refuse_a_setting_but_not_break_down(error):
    def vjp(causal, g):
        if causal and error == "refused":
            raise ValueError("causal is not supported")
        return {}, 2 * g if not causal else g @ g

    given = layer(switch, vjp), {}, WIDE
    right = layer(switch, CHANGES["causal=True instead of False"][1])
    usual = {"reference": right, "keywords": {"causal": False}}
    report, strict = (check_vjp(*given, strict=strict, **usual) for strict in (False, True))
    (said, *_) = report.notes if error == "refused" else [report.findings[0].message]
    assert report.ok == (error == "refused")
    assert said.startswith("vjp raised ValueError: ")
    assert "(with causal=True instead of False" in said
    assert strict.findings[0].cause == "exception"


def test_a_setting_that_only_the_backward_uses_may_break_it_down():
    def vjp(residuals, g):
        x, chunks = residuals
        return {}, {2: 2 * x * g}[chunks]

    made = layer(lambda params, x, *, chunks: (x * x, (x, chunks)), vjp)
    x = RNG.standard_normal((3, 5))
    report = check_vjp(made, {}, x, reference=lambda params, x, chunks: x * x, chunks=2)
    assert report, report
    assert any("KeyError: 4" in note for note in report.notes)


def halved(x):
    return x * x / 2


def largest(x):
    return x.max(axis=0)


@pytest.mark.parametrize(
    ("forward", "vjp", "what"),
    [
        (halved, lambda x, g: g * x * (x != np.rint(x)), "integers in x, some of them equal"),
        (largest, lambda x, g: g * (x == x.max(axis=0)) / (x == x.max(axis=0)).sum(axis=0), ""),
        (largest, lambda x, g: g * (x == x.max(axis=0)), ""),  # right but for ties
    ],
)
def test_ties_count_where_forward_is_smooth_there(forward, vjp, what):
    made = layer(lambda params, x: (forward(x), x), lambda x, g: ({}, vjp(x, g)))
    report = check_vjp(made, {}, X[0], reference=lambda params, x: forward(x), dtypes="float64")
    assert report.ok == (not what)
    assert what in str(report)


def test_a_scalar_stays_an_array():
    def forward(params, x):
        assert type(x) is np.ndarray
        return np.abs(x), x

    made = layer(forward, lambda x, g: ({}, np.asarray(g * np.sign(x))))
    report = check_vjp(made, {}, np.array(0.3), reference=lambda params, x: jnp.abs(x))
    assert report, report
    assert not report.notes


def test_an_overflow_on_the_way_to_right_results_is_a_note():
    def forward(params, x):
        return np.tanh(x), x

    def vjp(x, g):
        return {}, g * 4 / (np.exp(x) + np.exp(-x)) ** 2

    x = np.array([[1.0, 800.0, -3.0]])
    made, usual = layer(forward, vjp), {"reference": lambda params, x: jnp.tanh(x)}
    report, strict = (check_vjp(made, {}, x, strict=s, **usual) for s in (False, True))
    assert report, report
    assert any("overflow encountered in exp; the results are right" in n for n in report.notes)
    assert not strict
    assert strict.findings[0].cause == "not finite"


def test_a_setting_that_forward_ignores_is_found():
    def reference(params, x, *, causal):
        return jnp.cumsum(x, axis=1) if causal else 2 * x

    twice = layer(lambda params, x, *, causal: (2 * x, ()), lambda r, g: ({}, 2 * g))
    report = check_vjp(twice, {}, WIDE, reference=reference, dtypes="float64", causal=False)
    (finding,) = report.findings
    assert "but the reference another (with causal=True instead of False" in finding.message
    assert finding.cause == "value"
