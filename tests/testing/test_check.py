"""The checker itself: it passes what is right and names what is wrong; the bug zoo has more."""

import json
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.compose import bind
from functional_lm.layers import embedding, linear, rms_norm, silu
from functional_lm.testing import Finding, LeafReport, Report, check_vjp, registry

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5))
TEXTS = RNG.standard_normal((2, 5, 3))  # (B, T, D)


def square(params, x):
    return x * x, x


def square_vjp(x, g):
    return {}, 2 * x * g


def check(
    forward=square, vjp=square_vjp, x=X, reference=lambda p, x: x * x, declared=None, **keywords
):
    layer = types.SimpleNamespace(forward=forward, vjp=vjp, **(declared or {}))
    report = check_vjp(layer, {}, x, reference=reference, **keywords)
    assert report.ok == (not report.findings)
    return report


def findings(**changes):
    return " ".join(map(str, check(**changes).findings))


def test_a_tripled_gradient_is_caught_and_its_leaf_named():
    def tripled(residuals, g):
        d_params, d_x = linear.vjp(residuals, g)
        return {**d_params, "weight": 3 * d_params["weight"]}, d_x

    case = next(case for case in registry.cases("linear") if case.label == "bias")
    wrong = types.SimpleNamespace(forward=linear.forward, vjp=tripled)
    _, twin = registry.modules("linear")
    assert check_vjp(linear, case.params, case.x, reference=twin)
    report = check_vjp(wrong, case.params, case.x, reference=twin)
    assert [path for path, leaf in report.leaves.items() if not leaf.ok] == ["params.weight"]
    leaf = report.leaves["params.weight"]
    assert leaf.float64_error > leaf.float64_limit
    assert leaf.float32_error > leaf.float32_limit
    assert "params.weight " in str(report)
    assert "WRONG" in str(report)


MASK = np.array([True, True, False, True, True])
IDENTITY = {
    "forward": lambda p, x: (x, ()),
    "vjp": lambda r, g: ({}, g),
    "reference": lambda p, x: x,
}
MASKED = {
    "forward": lambda p, x: (np.where(MASK, x, -np.inf).astype(x.dtype), ()),
    "vjp": lambda r, g: ({}, g * MASK),
    "reference": lambda p, x: jnp.where(MASK, x, -jnp.inf),
}
SOFTPLUS = {
    "forward": lambda p, x: (np.log1p(np.exp(x)), x),
    "vjp": lambda x, g: ({}, g / (1 + np.exp(-x))),
    "reference": lambda p, x: jax.nn.softplus(x),
}
CUMSUM = {
    "forward": lambda p, x: (np.cumsum(x, axis=1), ()),
    "vjp": lambda r, g: ({}, np.cumsum(g[:, ::-1], axis=1)[:, ::-1].copy()),
    "reference": lambda p, x: jnp.cumsum(x, axis=1),
    "x": TEXTS,
}
CENTRED = {
    "forward": lambda p, x: (x - x.mean(axis=0), ()),
    "vjp": lambda r, g: ({}, g - g.mean(axis=0)),
    "reference": lambda p, x: x - x.mean(axis=0),
}
RIGHT = {
    "plain": {},
    "a cotangent": {"cotangent": np.ones((3, 5))},
    "float32 alone": {"dtypes": ("float32",)},
    "a view, declared": IDENTITY | {"declared": {"SHARES_MEMORY": "it is the identity"}},
    "infinity, declared": MASKED | {"declared": {"MAY_BE_NON_FINITE": True}},
    "scales that are not declared": SOFTPLUS,
    "a reference that mixes examples": CENTRED,
    "time on the second axis": CUMSUM,
}


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_layer_has_no_findings(kind):
    assert findings(**RIGHT[kind]) == ""


def test_a_second_axis_that_is_not_time_raises_no_alarm():
    layer = types.SimpleNamespace(
        forward=lambda p, x: (x + p["offset"], ()),
        vjp=lambda r, g: ({"offset": g.sum(axis=0)}, g * 1.0),
    )
    params = {"offset": RNG.standard_normal((5, 3))}
    check_vjp(layer, params, TEXTS, reference=lambda p, x: x + p["offset"]).raise_if_failed()


WRONG = {
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
    "y is not finite": {  # although the reference's is not either
        "forward": lambda p, x: (x * np.nan, x),
        "vjp": lambda x, g: ({}, g * np.nan),
        "reference": lambda p, x: x * jnp.nan,
    },
    "declare MAY_BE_NON_FINITE": MASKED,
    "y is wrong in float64": MASKED  # infinity in other places
    | {
        "declared": {"MAY_BE_NON_FINITE": True},
        "reference": lambda p, x: jnp.where(MASK, x, -jnp.inf)[:, ::-1],
    },
    "y shares memory with x; return a copy": IDENTITY,
    "the gradient of x shares memory with g": IDENTITY,
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
    "x is wrong for one example (x[0:1])": {
        "vjp": lambda x, g: ({}, 2 * x * g + (len(x) != 3) * g.sum())
    },
    "for an empty batch (x[:0])": {
        "vjp": lambda x, g: ({}, 2 * x * g + 0 * np.abs(x).max()),
        "strict": True,
    },
    "x is wrong for one token (x[:, :1])": CUMSUM
    | {"vjp": lambda r, g: ({}, 2 * g) if g.shape[1] == 1 else CUMSUM["vjp"](r, g)},
    "for x times 10000": SOFTPLUS | {"declared": {"EXTREME_SCALES": (1e-3, 1e4)}},
    "float16 numbers: a cast": {
        "vjp": lambda x, g: ({}, (2 * x * g).astype(np.float16).astype(g.dtype))
    },
}


@pytest.mark.parametrize("says", WRONG)
def test_what_is_wrong_is_named(says):
    assert says in findings(**WRONG[says])


CAUSES = {
    "shared memory": IDENTITY,
    "edge shape": WRONG["x is wrong for one example (x[0:1])"],
    "not finite": WRONG["y is not finite"],
    "precision": WRONG["float16 numbers: a cast"],
    "overwritten": WRONG["vjp writes to g"],
}


@pytest.mark.parametrize("cause", CAUSES)
def test_there_is_one_cause(cause):
    assert set(check(**CAUSES[cause]).causes.values()) == {cause}


def test_other_bits_the_second_time_are_found():
    count = iter(range(1000))
    assert "second vjp" in findings(vjp=lambda r, g: ({}, 2 * r * g * (1 + 1e-15 * next(count))))
    said = findings(forward=lambda p, x: (x * x * (1 + 1e-15 * next(count)), x))
    assert "a second forward of the same inputs gives other bits" in said


def test_state_that_is_hidden_between_calls_is_found():
    hidden = {}

    def forward(params, x):
        hidden["x"] = x
        return x * x, ()

    said = findings(forward=forward, vjp=lambda r, g: ({}, 2 * hidden["x"] * g))
    assert "a second vjp of the same residuals" in said


def test_a_write_to_a_keyword_is_found_and_does_not_reach_the_caller():
    def forward(params, x, *, n):
        n += 1
        return x * x, x

    n = np.zeros(3)
    said = findings(forward=forward, reference=lambda p, x, n: x * x, n=n)
    assert "forward writes to keyword.n" in said
    assert not n.any()
    assert n.flags.writeable


def test_a_write_to_the_residuals_behind_a_view_is_found():
    store = X * 1.0

    def vjp(residuals, g):
        store[0, 0] += 1
        return {}, 2 * X.astype(g.dtype) * g

    said = findings(forward=lambda p, x: (x * x, store.view()), vjp=vjp, dtypes=("float64",))
    assert "vjp writes to its residuals" in said


def test_after_a_write_the_check_goes_on_with_copies():
    report = check(**WRONG["vjp writes to g"])
    assert [str(f) for f in report.findings] == ["vjp writes to g"]
    assert report.leaves["x"].ok  # it was judged all the same


def test_a_gradient_for_tokens_must_be_none():
    layer = types.SimpleNamespace(
        forward=embedding.forward, vjp=lambda r, g: (embedding.vjp(r, g)[0], np.zeros(3))
    )
    ids = np.array([0, 2, 1])
    inputs = {"params": {"weight": X}, "x": ids}
    reference = lambda p, tokens: p["weight"][tokens]  # noqa: E731
    report = check_vjp(layer, **inputs, reference=reference, strict=True)
    assert "the cotangent of x must be None" in str(report.findings[0])
    layer.vjp = lambda r, g: (embedding.vjp(r, g)[0], np.ones(3))
    assert not check_vjp(layer, **inputs, reference=reference)


def test_a_float32_result_less_accurate_than_xla_is_found():
    report = check(  # the variance by a difference of large numbers
        forward=lambda p, x: ((x * x).mean(-1) - x.mean(-1) ** 2, x),
        vjp=lambda x, g: ({}, 2 * (x - x.mean(-1, keepdims=True)) * g[..., None] / x.shape[-1]),
        x=1000 + X,
        reference=lambda p, x: jnp.var(x, axis=-1),
    )
    assert report.leaves["y"].float32_error > report.leaves["y"].float32_limit
    assert report.leaves["x"].ok


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_keywords_come_in_the_dtype_of_x(dtype):
    seen = set()

    def forward(params, x, *, target):
        seen.add((x.dtype, target.dtype))
        return np.sum((x - target) ** 2), x - target

    said = findings(
        forward=forward,
        reference=lambda p, x, *, target: jnp.sum((x - target) ** 2),
        target=RNG.standard_normal((3, 5)).astype(dtype),
    )
    assert said == ""
    assert all(a == b for a, b in seen)


def test_the_report_as_json():
    report = check()
    record = json.loads(json.dumps(report.to_dict()))
    assert record["ok"] is True
    assert record["leaves"]["x"]["over_xla"] == report.leaves["x"].over_xla
    assert record["oracle"] == "jax.vjp of the reference"
    bad = check(vjp=lambda x, g: ({}, x * np.nan))
    record = json.loads(json.dumps(bad.to_dict(), allow_nan=False))
    assert record["leaves"]["x"]["float64_error"] == "nan"
    assert record["findings"][0]["cause"] == "not finite"


def test_residual_bytes_leave_out_what_is_shared():
    layer = types.SimpleNamespace(
        forward=lambda p, x: (x * x, (x, x.T, p["w"], np.tanh(x))),
        vjp=lambda r, g: ({"w": 0 * r[2]}, 2 * r[0] * g),
    )
    report = check_vjp(layer, {"w": np.ones(7)}, X, reference=lambda p, x: x * x)
    assert report
    assert report.residual_bytes == 15 * 4


def test_the_reference_may_be_a_module_or_a_function():
    _, twin = registry.modules("silu")
    for reference in (twin, twin.forward, lambda params, x: jax.nn.silu(x)):
        assert check_vjp(silu, {}, X, reference=reference)


def test_without_jax_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"pip install 'functional-lm\[jax\]'"):
        check()


def raises(params, x):
    raise RuntimeError("out of luck")


WIDE = {
    "layer": linear,
    "params": {"weight": np.ones((3, 2))},
    "reference": lambda p, x: x @ p["weight"],
}
MISUSE = [
    ({"reference": 3}, TypeError, "reference must be a function"),
    ({"dtypes": ("float8",)}, ValueError, "'float8'"),
    ({"dtypes": ()}, ValueError, "at least one"),
    ({"cotangent": np.ones(5)}, ValueError, "have shape (3, 5): got (5,)"),
    ({"x": 3.0}, TypeError, "must hold arrays: got {} and 3.0"),
    ({"x": np.array(["a"])}, TypeError, "x must be an array of numbers: got <U1"),
    ({"layer": types.SimpleNamespace(forward=square)}, TypeError, "has no vjp"),
    ({"x": X * np.nan}, ValueError, "must be finite: x has 15 entries that are not finite"),
    ({"x": [[1.0], [1.0, 2.0]]}, ValueError, "rows of a list must have one length"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
]


def branches(params, x):
    if x.sum() > 0:
        return x
    return -x


UNFIT = [
    ({"refrence": None}, "the keywords {}: got refrence; did you mean reference?"),
    ({"layer": rms_norm, "epz": 1.0}, "{eps, offset}: got epz; did you mean eps?"),
    ({"layer": bind(rms_norm, eps=1e-3), "eps": 1.0}, "{offset}: got eps; remove it"),
    ({"reference": raises}, "it raised RuntimeError: out of luck (test_check.py, line "),
    ({"reference": lambda p, x: p["w"]}, "it raised KeyError: 'w' (test_check.py, line "),
    ({"reference": lambda p, x: x @ x}, "the reference must take params and x, as forward does"),
    ({"reference": lambda p, x: np.sin(x)}, "it raised TracerArrayConversionError"),
    ({"reference": branches}, "`if x.sum() > 0:`"),
    ({"reference": jax.nn.silu}, "takes 1 positional argument but 2 were given"),
    ({"reference": lambda p, x: None}, "the reference must return y, made of arrays: got None"),
    (WIDE | {"reference": None}, "must suit the layer: forward refuses them: ValueError"),
    (WIDE, "and so does the reference: ValueError: x must have shape (..., D_in)"),
    ({"x": X * 1j}, "x must be real: got complex128"),
    ({"layer": types.SimpleNamespace(forward=raises, vjp=square)}, '`raise RuntimeError("out of'),
]


@pytest.mark.parametrize(("changes", "says"), UNFIT, ids=[says for _, says in UNFIT])
def test_what_does_not_fit_is_a_finding_with_its_line(changes, says):
    usual = {"layer": silu, "params": {}, "x": X, "reference": lambda p, x: jax.nn.silu(x)}
    report = check_vjp(**usual | changes)
    assert not report
    (finding,) = report.findings
    assert says in finding.message
    assert finding.cause in ("exception", "reference")


def test_keywords_may_have_the_names_of_arguments_and_numbers_may_be_cotangents():
    layer = types.SimpleNamespace(
        forward=lambda p, x, *, seed: (seed * x.sum(), (seed, x)),
        vjp=lambda r, g: ({}, g * r[0] * np.ones_like(r[1])),
    )
    reference = lambda p, x, *, seed: seed * x.sum()  # noqa: E731
    report = check_vjp(
        layer, {}, X, reference=reference, cotangent=1.0, keywords={"seed": 3.0}, seed=5
    )
    assert report, report


def conventions(scale):
    """Return a layer with the habits of other people's code; 1 is the right scale."""

    def forward(params, x):
        ids, rows = x
        rows.reshape(len(rows), -1)  # refuses an empty batch
        y = np.tanh(rows)
        return y, (ids, y)

    def vjp(residuals, g):
        ids, y = residuals
        return {}, (np.zeros(ids.shape), scale * g * (1 - y * y))

    return types.SimpleNamespace(forward=forward, vjp=vjp)


def test_habits_of_others_are_notes_unless_the_check_is_strict():
    inputs = ({}, (np.arange(3), X))
    reference = lambda params, x: jax.numpy.tanh(x[1])  # noqa: E731
    report = check_vjp(conventions(1.0), *inputs, reference=reference)
    assert report, report
    assert [note.partition(";")[0] for note in report.notes] == [
        "vjp returns zeros for integers",
        "forward raised ValueError: cannot reshape array of size 0 into shape (0,newaxis)"
        + report.notes[1].partition("newaxis)")[2].partition(";")[0],
    ]
    assert "note: vjp returns zeros for integers" in str(report)
    assert not check_vjp(conventions(2.0), *inputs, reference=reference)
    assert not check_vjp(conventions(1.0), *inputs, reference=reference, strict=True)
    loss = types.SimpleNamespace(
        forward=lambda p, x: (float((x * x).sum()), x), vjp=lambda x, g: ({}, 2 * x * g)
    )
    report = check_vjp(loss, {}, X, reference=lambda p, x: (x * x).sum())
    assert report, report
    assert "Python float" in report.notes[0]


def test_a_gradient_that_is_zero_but_for_rounding_is_linear():
    def forward(params, x):
        scores = x @ params["keys"] + params["bias"]  # softmax does not see the bias of all keys
        probs = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probs /= probs.sum(axis=-1, keepdims=True)
        return probs, (params, x, probs)

    def vjp(residuals, g):
        params, x, probs = residuals
        d_scores = probs * (g - (g * probs).sum(axis=-1, keepdims=True))
        d_params = {"keys": x.T @ d_scores, "bias": d_scores.sum(axis=-1, keepdims=True).sum(0)}
        return d_params, d_scores @ params["keys"].T

    layer = types.SimpleNamespace(forward=forward, vjp=vjp)
    params = {"keys": RNG.standard_normal((5, 7)), "bias": np.array([0.3])}
    for seed in range(5):
        report = check_vjp(
            layer,
            params,
            X,
            reference=lambda p, x: jax.nn.softmax(x @ p["keys"] + p["bias"]),
            seed=seed,
            own_inputs=seed == 0,
        )
        assert report, report


def test_one_token_is_not_tried_on_keys_beside_queries_or_on_indices():
    taken = types.SimpleNamespace(
        forward=lambda p, x: (np.take_along_axis(x[0], x[1], axis=1), x),
        vjp=take_backward,
    )
    rows = RNG.standard_normal((2, 5, 3))
    ids = np.array([[[1], [4], [0], [0], [2]]] * 2)
    report = check_vjp(
        taken,
        {},
        (rows, ids),
        reference=lambda p, x: jax.numpy.take_along_axis(x[0], x[1], axis=1),
    )
    assert report, report


def take_backward(x, g):
    rows, ids = x
    d_rows = np.zeros_like(rows)
    batch, _, columns = np.ogrid[tuple(map(slice, rows.shape))]
    np.add.at(d_rows, (batch, ids, columns), g)
    return {}, (d_rows, None)


@pytest.mark.parametrize(("changes", "error", "says"), MISUSE, ids=[says for *_, says in MISUSE])
def test_wrong_use_is_an_error_and_not_a_failed_report(changes, error, says):
    usual = {"layer": silu, "params": {}, "x": X, "reference": lambda p, x: jax.nn.silu(x)}
    with pytest.raises(error, match=re.escape(says)):
        check_vjp(**usual | changes)


class Tensor:
    """Like one of PyTorch that requires a gradient."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self.array

    def __array__(self, *arguments, **keywords):
        raise RuntimeError("use tensor.detach()")


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, Tensor, np.ndarray.tolist])
def test_arrays_of_others_and_lists_are_converted(make):
    weight = np.float32(RNG.standard_normal((5, 2)))
    params, x = {"weight": make(weight)}, make(np.float32(X))
    report = check_vjp(linear, params, x, reference=lambda p, x: x @ p["weight"])
    report.raise_if_failed()
    assert list(report.leaves) == ["y", "params.weight", "x"]


def test_a_report_has_the_name_given_and_says_how_to_make_it_again():
    report = check(vjp=lambda x, g: ({}, x * g), name="mine", seed=3)
    assert str(report).startswith("mine: FAILED")
    assert report.reproduce.endswith("params, x, reference=reference, seed=3, name='mine')")


def test_one_cause_is_stated_once_with_the_leaves_that_it_explains():
    found = [Finding("accuracy", f"{x} is <off>", x, "", "sign", "of a & b") for x in ("a", "x")]
    other = Finding("accuracy", "b is off", "b", "", "sign", "of another")
    report = Report("<layer>", {"a": LeafReport("a", 1.0, 0.1)}, [*found, other])
    said = str(report)
    assert said.count("likely cause") == 2
    assert "likely cause: sign: of a & b (explains a, x)" in said
    shown = report._repr_html_()
    assert "<b>&lt;layer&gt;: FAILED</b>" in shown
    assert "<td>1.0e+00<td>1.0e-01" in shown
    assert "a is &lt;off&gt;<br>x is &lt;off&gt;<br><i>likely cause: sign: of a &amp; b" in shown
    assert "certified numerically against jax.vjp" in check()._repr_html_()


def test_layouts_and_dtypes_are_one_line_a_cause():
    layouts = [
        Finding("inputs", f"{leaf} is wrong for {kind} inputs in float64", leaf, "", "layout")
        for kind in ("strided", "reversed")
        for leaf in ("params.w", "x")
    ]
    dtypes = [
        Finding(
            "contract", f"{at} is float64 where the inputs are float32", at, "", "precision", "S"
        )
        for at in ("residuals.0", "y", "x")
    ]
    assert str(Report("mine", findings=[*layouts, *dtypes])).splitlines()[1:] == [
        "  - params.w and x are wrong for strided inputs in float64, reversed inputs in float64",
        "  - residuals.0, y and x are float64 where the inputs are float32",
        "      likely cause: precision: S",
    ]
    report = check(vjp=lambda r, g: ({}, 2 * r * g.ravel(order="K").reshape(g.shape)))
    assert str(report).count("wrong for") == 1
    scale = np.ones(())
    report = check(
        forward=lambda p, x: (x * x * scale, x * scale), vjp=lambda x, g: ({}, 2 * x * g * scale)
    )
    assert str(report).count("where the inputs are float32") == 1
