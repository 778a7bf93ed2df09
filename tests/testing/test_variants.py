"""What the checker looks at besides the inputs given: declarations, edges, scales, keywords."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.testing import check_vjp

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5))


def layer(forward, vjp, **declared):
    return types.SimpleNamespace(__name__="layer", forward=forward, vjp=vjp, **declared)


def square(params, x):
    return x * x, x


def square_vjp(x, g):
    return {}, 2 * x * g


def reference(params, x):
    return x * x


def said(report):
    return "\n".join(map(str, report.findings))


def test_a_result_that_is_a_view_is_found_unless_it_is_declared():
    identity = (lambda params, x: (x, ()), lambda residuals, g: ({}, g))
    report = check_vjp(layer(*identity), {}, X, reference=lambda params, x: x)
    assert "y shares memory with x; return a copy" in said(report)
    assert "the gradient of x shares memory with g" in said(report)
    assert set(report.causes.values()) == {"shared memory"}
    declared = layer(*identity, SHARES_MEMORY="it is the identity")
    assert check_vjp(declared, {}, X, reference=lambda params, x: x)


def test_infinity_is_a_fault_unless_it_is_declared():
    mask = np.array([True, True, False, True, True])
    hidden = (
        lambda params, x: (np.where(mask, x, -np.inf).astype(x.dtype), ()),
        lambda residuals, g: ({}, g * mask),
    )

    def masked(params, x):
        return jnp.where(mask, x, -jnp.inf)

    report = check_vjp(layer(*hidden), {}, X, reference=masked)
    assert report.causes["y"] == "not finite"
    assert "MAY_BE_NON_FINITE" in said(report)
    declared = layer(*hidden, MAY_BE_NON_FINITE=True)
    check_vjp(declared, {}, X, reference=masked).raise_if_failed()
    elsewhere = check_vjp(declared, {}, X, reference=lambda params, x: masked(params, x)[:, ::-1])
    assert "y" in elsewhere.causes


def test_nan_on_both_sides_is_a_fault():
    both = layer(lambda p, x: (x * np.nan, x), lambda x, g: ({}, g * np.nan))
    report = check_vjp(both, {}, X, reference=lambda params, x: x * jnp.nan)
    assert not report
    assert set(report.causes.values()) == {"not finite"}


def softplus_vjp(x, g):
    return {}, g / (1 + np.exp(-x))


def test_declared_scales_are_looked_at():
    naive = (lambda params, x: (np.log1p(np.exp(x)), x), softplus_vjp)

    def twin(params, x):
        return jax.nn.softplus(x)

    assert check_vjp(layer(*naive), {}, X, reference=twin)
    report = check_vjp(layer(*naive, EXTREME_SCALES=(1e-3, 1e4)), {}, X, reference=twin)
    assert "for x times 10000" in said(report)
    assert "0.001" not in said(report)


def test_a_layer_that_mixes_the_examples_of_a_batch_is_found():
    def vjp(x, g):
        return {}, 2 * x * g if len(x) == 3 else 2 * x * g + g.sum()

    report = check_vjp(layer(square, vjp), {}, X, reference=reference)
    assert "x is wrong for one example (x[0:1])" in said(report)
    assert report.causes == {"x": "edge shape"}


def test_a_reference_that_mixes_examples_is_not_held_against_the_layer():
    def forward(params, x):
        return x - x.mean(axis=0), x.shape

    def vjp(shape, g):
        return {}, g - g.mean(axis=0)

    centred = layer(forward, vjp)
    assert check_vjp(centred, {}, X, reference=lambda params, x: x - x.mean(axis=0))


def test_an_empty_batch_must_work():
    def vjp(x, g):
        assert np.abs(x).max() >= 0
        return {}, 2 * x * g

    report = check_vjp(layer(square, vjp), {}, X, reference=reference)
    assert "for an empty batch (x[:0])" in said(report)


def test_one_token_must_work():
    def forward(params, x):  # (B, T, D)
        return np.cumsum(x, axis=1), ()

    def vjp(residuals, g):
        if g.shape[1] == 1:
            return {}, 2 * g
        return {}, np.cumsum(g[:, ::-1], axis=1)[:, ::-1].copy()

    x = RNG.standard_normal((2, 5, 3))
    report = check_vjp(layer(forward, vjp), {}, x, reference=lambda p, x: jnp.cumsum(x, axis=1))
    assert "x is wrong for one token (x[:, :1])" in said(report)


def test_a_second_axis_that_is_not_time_raises_no_alarm():
    def vjp(residuals, g):
        return {"offset": g.sum(axis=0)}, g * 1.0

    params = {"offset": RNG.standard_normal((5, 3))}
    placed = layer(lambda p, x: (x + p["offset"], ()), vjp)
    x = RNG.standard_normal((2, 5, 3))
    check_vjp(placed, params, x, reference=lambda p, x: x + p["offset"]).raise_if_failed()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_keywords_come_in_the_dtype_of_x(dtype):
    target = RNG.standard_normal((3, 5)).astype(dtype)
    seen = set()

    def forward(params, x, *, target):
        seen.add((x.dtype, target.dtype))
        return np.sum((x - target) ** 2), x - target

    distance = layer(forward, lambda r, g: ({}, 2 * g * r))

    def twin(params, x, *, target):
        return jnp.sum((x - target) ** 2)

    check_vjp(distance, {}, X, reference=twin, target=target).raise_if_failed()
    assert all(a == b for a, b in seen)


def test_after_a_write_the_check_goes_on_with_copies():
    def vjp(x, g):
        g *= 2
        return {}, x * g

    report = check_vjp(layer(square, vjp), {}, X, reference=reference)
    assert [str(f) for f in report.findings] == ["vjp writes to g"]
    assert report.causes == {"": "overwritten"}
    assert report.leaves["x"].ok  # it was judged all the same


def test_the_report_as_json():
    report = check_vjp(layer(square, square_vjp), {}, X, reference=reference)
    record = json.loads(json.dumps(report.to_dict()))
    assert record["ok"] is True
    assert record["leaves"]["x"]["over_xla"] == report.leaves["x"].over_xla
    assert record["oracle"] == "jax.vjp of the reference"
    bad = check_vjp(layer(square, lambda x, g: ({}, x * np.nan)), {}, X, reference=reference)
    record = json.loads(json.dumps(bad.to_dict(), allow_nan=False))
    assert record["leaves"]["x"]["float64_error"] == "nan"
    assert record["findings"][0]["cause"] == "not finite"


def test_residual_bytes_leave_out_what_is_shared():
    def forward(params, x):
        return x * x, (x, x.T, params["w"], np.tanh(x))

    def vjp(residuals, g):
        return {"w": np.zeros_like(residuals[2])}, 2 * residuals[0] * g

    report = check_vjp(layer(forward, vjp), {"w": np.ones(7)}, X, reference=reference)
    assert report
    assert report.residual_bytes == 15 * 4


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="has no vjp"):
        check_vjp(types.SimpleNamespace(forward=square), {}, X)
    with pytest.raises(TypeError, match="must hold NumPy arrays"):
        check_vjp(layer(square, square_vjp), {}, 3.0)
    with pytest.raises(TypeError, match="x must be an array of numbers: got <U1"):
        check_vjp(layer(square, square_vjp), {}, np.array(["a"]))
    with pytest.raises(ValueError, match="at least one"):
        check_vjp(layer(square, square_vjp), {}, X, dtypes=())


def test_a_narrow_intermediate_is_named():
    def vjp(x, g):
        return {}, (2 * x * g).astype(np.float16).astype(g.dtype)

    report = check_vjp(layer(square, vjp), {}, X, reference=reference)
    assert report.causes["x"] == "precision"
    assert "float16" in said(report)
