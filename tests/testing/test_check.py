"""The checker itself: it passes what is right and names what is wrong."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.layers import attention, embedding, linear, rms_norm, rotary, silu
from functional_lm.testing import Case, check_vjp, registry

RNG = np.random.default_rng(0)


def layer(right, vjp, forward=None):
    """Return a layer with a planted bug."""
    return types.SimpleNamespace(__name__=right.__name__, forward=forward or right.forward, vjp=vjp)


def case(name, label):
    return next(case for case in registry.cases(name) if case.label == label)


def missing_mean_term(residuals, g):
    d_params, _ = rms_norm.vjp(residuals, g)
    return d_params, residuals.rstd * g * residuals.scale


def transposed_weight(residuals, g):
    d_params, _ = linear.vjp(residuals, g)
    return d_params, g @ residuals.weight  # square, so the shape is right


def assigned_instead_of_added(residuals, g):
    d_weight = np.zeros_like(residuals.weight)
    d_weight[residuals.tokens] = g
    return {"weight": d_weight}, None


def tripled(residuals, g):
    d_params, d_x = linear.vjp(residuals, g)
    return {**d_params, "weight": 3 * d_params["weight"]}, d_x


def wrong_sign(residuals, g):
    return rotary.vjp(residuals._replace(rotation=residuals.rotation.conj()), g)


def dropped_group_sum(residuals, g):
    _, d_x = attention.vjp(residuals, g)
    first = g.copy()
    first[:, :, 1:3] = first[:, :, 4:] = 0  # one query head of each group
    _, partial = attention.vjp(residuals, first)
    return {}, d_x._replace(v=partial.v)


def leaf_never_written(residuals, g):
    d_params, d_x = linear.vjp(residuals, g)
    return {**d_params, "bias": np.zeros_like(d_params["bias"])}, d_x


def right_for_ones_only(residuals, g):
    return silu.vjp(residuals, np.ones_like(g))


SQUARE = {"weight": RNG.standard_normal((5, 5))}

BUGS = {
    "missing mean term": (rms_norm, missing_mean_term, case("rms_norm", "primes"), ["x"]),
    "transposed weight": (
        linear,
        transposed_weight,
        Case("linear", "", SQUARE, RNG.standard_normal((2, 3, 5)), {}),
        ["x"],
    ),
    "= for +=": (
        embedding,
        assigned_instead_of_added,
        case("embedding", "repeated"),
        ["params.weight"],
    ),
    "tripled gradient": (linear, tripled, case("linear", "bias"), ["params.weight"]),
    "wrong sign": (rotary, wrong_sign, case("rotary", "interleaved"), ["x"]),
    "dropped group sum": (attention, dropped_group_sum, case("attention", "H=6 G=1"), ["x.v"]),
    "leaf never written": (linear, leaf_never_written, case("linear", "bias"), ["params.bias"]),
    "right for g = 1 only": (silu, right_for_ones_only, case("silu", "primes"), None),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_leaf_named(bug):
    right, vjp, case, wrong = BUGS[bug]
    _, twin = registry.modules(case.layer)
    assert check_vjp(right, case.params, case.x, reference=twin, **case.keywords)
    report = check_vjp(layer(right, vjp), case.params, case.x, reference=twin, **case.keywords)
    assert not report
    if wrong is None:  # not even linear in g
        assert any("zero g does not give zero" in str(f) for f in report.findings)
        assert "x" in [path for path, leaf in report.leaves.items() if not leaf.ok]
        return
    assert [path for path, leaf in report.leaves.items() if not leaf.ok] == wrong
    for path in wrong:
        leaf = report.leaves[path]
        assert leaf.float64_error > leaf.float64_limit
        assert leaf.float32_error > leaf.float32_limit
        assert f"{path} " in str(report)
    assert "WRONG" in str(report)


X = RNG.standard_normal((3, 5))


def square(params, x):
    return x * x, x


def square_vjp(residuals, g):
    return {}, 2 * residuals * g


def findings(forward=square, vjp=square_vjp, **keywords):
    subject = types.SimpleNamespace(forward=forward, vjp=vjp)
    keywords = {"reference": lambda params, x: x * x} | keywords
    report = check_vjp(subject, {}, X, **keywords)
    assert report.ok == (not report.findings)
    return " ".join(map(str, report.findings))


def test_a_right_layer_has_no_findings():
    assert findings() == ""
    assert findings(cotangent=np.ones((3, 5))) == ""
    assert findings(dtypes=("float32",)) == ""


CONTRACT = {
    "forward must return (y, residuals): got ndarray float64": {"forward": lambda p, x: x * x},
    "vjp must return (d_params, d_x): got a tuple of 3": {"vjp": lambda r, g: ({}, g, g)},
    "forward raised ZeroDivisionError: division by zero": {"forward": lambda p, x: 1 / 0},
    "vjp raised KeyError: 'nothing'": {"vjp": lambda r, g: {}["nothing"]},
    "vjp raised FloatingPointError": {"vjp": lambda r, g: ({}, g * np.exp(r + 1e4))},
    "y must have shape (3, 5): got (3, 1)": {"forward": lambda p, x: (x[:, :1], x)},
    "x must have shape (3, 5): got (5,)": {"vjp": lambda r, g: ({}, (2 * r * g).sum(0))},
    "x must be an array: got NoneType": {"vjp": lambda r, g: ({}, None)},
    "params has another structure": {"vjp": lambda r, g: ({"weight": g}, g)},
    "x is float64 where the inputs are float32": {
        "vjp": lambda r, g: ({}, (2 * r * g).astype(np.float64))
    },
    "residuals.0 is complex128 where the inputs are float32": {
        "forward": lambda p, x: (x * x, (x.astype(complex), x)),
        "vjp": lambda r, g: ({}, 2 * r[1] * g),
    },
    "residuals is float64 where the inputs are float32": {
        "forward": lambda p, x: (x * x, x.astype(np.float64)),
        "vjp": lambda r, g: ({}, 2 * r.astype(g.dtype) * g),
    },
    "x is not finite": {"vjp": lambda r, g: ({}, np.full_like(g, np.nan))},
    "vjp writes to g": {"vjp": lambda r, g: ({}, np.multiply(2 * r, g, out=g))},
    "zero g does not give zero": {"vjp": lambda r, g: ({}, 2 * r * g + 1e-30)},
    "not linear in g": {"vjp": lambda r, g: ({}, 2 * r * np.abs(g))},
    "x is wrong for reversed inputs in float32": {
        "vjp": lambda r, g: ({}, 2 * r * (np.abs(g) if g.strides[0] < 0 else g))
    },
    "x is wrong for strided inputs in float64": {
        "vjp": lambda r, g: ({}, 2 * r * g * (2 if g.strides[-1] == 2 * g.itemsize else 1))
    },
    "x is wrong for Fortran-ordered inputs": {
        "vjp": lambda r, g: ({}, 2 * r * g.ravel(order="K").reshape(g.shape))
    },
}


@pytest.mark.parametrize("says", CONTRACT)
def test_a_breach_of_the_contract_is_named(says):
    assert says in findings(**CONTRACT[says])


def test_another_result_the_second_time_is_found():
    count = iter(range(100))
    assert "second vjp" in findings(vjp=lambda r, g: ({}, 2 * r * g * (1 + 1e-15 * next(count))))


def test_state_that_is_hidden_between_calls_is_found():
    hidden = {}

    def forward(params, x):
        hidden["x"] = x
        return x * x, ()

    report = check_vjp(
        types.SimpleNamespace(forward=forward, vjp=lambda r, g: ({}, 2 * hidden["x"] * g)),
        {},
        X,
        reference=lambda params, x: x * x,
    )
    assert any("a second vjp of the same residuals" in str(f) for f in report.findings)


def test_another_value_the_second_time_is_found():
    count = iter(range(1000))
    said = findings(lambda params, x: (x * x * (1 + 1e-15 * next(count)), x))
    assert "a second forward of the same inputs gives other bits" in said


def test_a_write_to_a_keyword_is_found_and_does_not_reach_the_caller():
    def forward(params, x, *, n):
        n += 1
        return x * x, x

    n = np.zeros(3)
    report = check_vjp(
        types.SimpleNamespace(forward=forward, vjp=square_vjp),
        {},
        X,
        reference=lambda params, x, n: x * x,
        n=n,
    )
    assert "forward writes to keyword.n" in str(report.findings[-1])
    assert not n.any()
    assert n.flags.writeable


def test_a_write_to_the_residuals_behind_a_view_is_found():
    store = X * 1.0

    def vjp(residuals, g):
        store[0, 0] += 1
        return {}, 2 * X.astype(g.dtype) * g

    def forward(params, x):
        return x * x, store.view()

    assert "vjp writes to its residuals" in findings(forward, vjp, dtypes=("float64",))


def test_a_gradient_for_tokens_must_be_none():
    def vjp(residuals, g):
        d_params, _ = embedding.vjp(residuals, g)
        return d_params, np.zeros(3)

    report = check_vjp(
        layer(embedding, vjp),
        {"weight": X},
        np.array([0, 2, 1]),
        reference=lambda params, tokens: params["weight"][tokens],
    )
    assert "the cotangent of x must be None" in str(report.findings[0])


def test_a_float32_result_less_accurate_than_xla_is_found():
    def forward(params, x):  # the variance by a difference of large numbers
        return (x * x).mean(-1) - x.mean(-1) ** 2, x

    def vjp(x, g):
        return {}, 2 * (x - x.mean(-1, keepdims=True)) * g[..., None] / x.shape[-1]

    subject = types.SimpleNamespace(forward=forward, vjp=vjp)
    x = 1000 + X
    report = check_vjp(subject, {}, x, reference=lambda params, x: jnp.var(x, axis=-1))
    assert not report
    assert report.leaves["y"].float32_error > report.leaves["y"].float32_limit
    assert report.leaves["x"].ok


def test_the_reference_may_be_a_module_or_a_function():
    _, twin = registry.modules("silu")
    for reference in (twin, twin.forward, lambda params, x: jax.nn.silu(x)):
        assert check_vjp(silu, {}, X, reference=reference)
    with pytest.raises(TypeError, match="reference must be a function"):
        check_vjp(silu, {}, X, reference=3)


def test_without_jax_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"pip install 'functional-lm\[jax\]'"):
        check_vjp(silu, {}, X, reference=lambda params, x: x)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="'float16'"):
        check_vjp(silu, {}, X, reference=lambda params, x: x, dtypes=("float16",))


def test_a_cotangent_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"cotangent must have shape \(3, 5\): got \(5,\)"):
        check_vjp(silu, {}, X, reference=registry.modules("silu")[1], cotangent=np.ones(5))
