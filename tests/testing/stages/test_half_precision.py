"""Verdicts in half precision."""

import json

import numpy as np
import pytest

from functional_lm.interop import from_jax, from_torch
from functional_lm.testing import check_vjp
from functional_lm.testing.limits import largest_number

pytest.importorskip("jax")
RNG = np.random.default_rng(0)
X, SCALE = RNG.standard_normal((4, 6, 32)), 1 + 0.3 * RNG.standard_normal(32)


def single(x):
    return x.astype(np.float32)


class RmsNorm:
    """A kernel: half precision outside, float32 inside."""

    @classmethod
    def forward(cls, params, x):
        x_hat, _ = cls.normed(x)
        return (x_hat * single(params["scale"])).astype(x.dtype), (params, x)

    @staticmethod
    def normed(x):
        rstd = (np.square(single(x)).mean(-1, keepdims=True)) ** -0.5
        return single(x) * rstd, rstd

    @classmethod
    def vjp(cls, residuals, g):
        params, x = residuals
        x_hat, rstd = cls.normed(x)
        g_hat = single(g) * single(params["scale"])
        d_x = rstd * (g_hat - x_hat * (g_hat * x_hat).mean(-1, keepdims=True))
        return {"scale": cls.added(g * x_hat).astype(x.dtype)}, d_x.astype(x.dtype)

    @staticmethod
    def added(products):
        return products.sum((0, 1))


def reference(params, x):
    return x * (x**2).mean(-1, keepdims=True) ** -0.5 * params["scale"]


def check(layer, dtypes="bfloat16", x=X, **settings):
    return check_vjp(layer, {"scale": SCALE}, x, reference=reference, dtypes=dtypes, **settings)


def verdicts(report):
    return {leaf.path: leaf.verdict for leaf in report.half}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_float32_inside_is_right(dtype):
    report = check(RmsNorm, dtype)
    assert report.ok
    assert verdicts(report) == dict.fromkeys(["y", "params.scale", "x"], "right")
    assert all(leaf.factor < 1.5 for leaf in report.half)


class SumsInHalf(RmsNorm):
    """Adds up the gradient of the scale in the dtype of x."""

    @staticmethod
    def forward(params, x):
        return x * params["scale"], (params, x)

    @staticmethod
    def vjp(residuals, g):
        params, x = residuals
        total = np.zeros_like(params["scale"])
        for row in g * x:
            total = (total + row).astype(x.dtype)
        return {"scale": total}, g * params["scale"]


def test_a_long_sum_in_half_precision_is_inexact():
    x, params = RNG.standard_normal((1500, 3)), {"scale": SCALE[:3]}
    report = check_vjp(
        SumsInHalf, params, x, reference=lambda p, x: x * p["scale"], dtypes="bfloat16"
    )
    assert verdicts(report) == {"y": "right", "params.scale": "inexact", "x": "right"}
    (finding,) = report.findings
    assert finding.cause == "precision"
    assert "params.scale is inexact by a factor of" in finding.message


class StagnatesInHalf(RmsNorm):
    """Adds up many numbers in the dtype of x: its error is systematic, and small in float32."""

    @staticmethod
    def forward(params, x):
        total = np.zeros(x.shape[:1], x.dtype)
        for column in x.T:
            total = (total + column).astype(x.dtype)
        return total, x

    @staticmethod
    def vjp(x, g):
        return {}, np.repeat(g[:, None], x.shape[1], axis=1)


def test_a_sum_that_stagnates_is_inexact_where_float32_shows_it():
    x = np.abs(RNG.standard_normal((3, 2000))) + 1
    report = check_vjp(
        StagnatesInHalf, {}, x, reference=lambda params, x: x.sum(-1), dtypes="bfloat16"
    )
    value = next(leaf for leaf in report.half if leaf.path == "y")
    assert value.systematic > 0.9
    assert value.verdict == "inexact"


class WithoutTheMean(RmsNorm):
    @classmethod
    def vjp(cls, residuals, g):
        d_params, d_x = super().vjp(residuals, g)
        params, x = residuals
        _, rstd = cls.normed(x)
        return d_params, (rstd * single(g) * single(params["scale"])).astype(d_x.dtype)


class Halved(RmsNorm):
    @classmethod
    def vjp(cls, residuals, g):
        d_params, d_x = super().vjp(residuals, g)
        return d_params, d_x / d_x.dtype.type(2)


class OnlyHalf(Halved):
    @classmethod
    def forward(cls, params, x):
        assert x.dtype.itemsize == 2
        return super().forward(params, x)


@pytest.mark.parametrize(
    ("layer", "cause"),
    [(WithoutTheMean, "unknown"), (Halved, "constant factor"), (OnlyHalf, "constant factor")],
)
def test_a_wrong_formula_is_wrong(layer, cause):
    report = check(layer)
    assert verdicts(report)["x"] == "wrong"
    assert report.causes == {"x": cause}
    assert next(leaf for leaf in report.half if leaf.path == "x").systematic > 0.95


def test_a_problem_that_rounding_decides_is_ill_conditioned():
    x = np.ones((3, 5)) + 1e-3 * RNG.standard_normal((3, 5))
    report = check_vjp(
        from_jax(lambda x: 1e3 * (x[:, 0] - x[:, 1])),
        {},
        x,
        reference=lambda params, x: 1e3 * (x[:, 0] - x[:, 1]),
        dtypes="bfloat16",
    )
    assert verdicts(report)["y"] == "ill-conditioned here"
    assert report.ok


def test_nan_and_another_shape_are_found():
    class Overflows(RmsNorm):
        @classmethod
        def vjp(cls, residuals, g):
            d_params, d_x = super().vjp(residuals, g)
            return d_params, d_x * d_x.dtype.type(np.inf)

    class Flat(RmsNorm):
        @classmethod
        def vjp(cls, residuals, g):
            d_params, d_x = super().vjp(residuals, g)
            return d_params, d_x.reshape(-1)

    assert check(Overflows).causes["x"] == "not finite"
    assert "x must have shape (4, 6, 32) in bfloat16: got (768,)" in str(check(Flat))


def test_both_kinds_of_precision_in_one_report():
    report = check(RmsNorm, ("float32", "bfloat16"))
    assert report
    assert {leaf.path for leaf in report.half} == set(report.leaves)
    text = str(report)
    assert "over XLA" in text
    assert "systematic" in text
    json.dumps(report.to_dict(), allow_nan=False)
    assert report._repr_html_().count("<table>") == 2


def test_tensors_of_half_precision():
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal((3, 5))

    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            assert x.dtype == torch.bfloat16
            ctx.save_for_backward(x)
            return torch.relu(x)

        @staticmethod
        def backward(ctx, g):
            return g * (ctx.saved_tensors[0] > 0)

    oracle = from_torch(lambda x: torch.relu(x))
    report = check_vjp(from_torch(Relu), {}, x, reference=oracle, dtypes="bfloat16")
    assert report, report


def test_half_precision_needs_a_reference():
    with pytest.raises(ValueError, match="half precision is compared with a reference"):
        check_vjp(RmsNorm, {"scale": SCALE}, X, dtypes="bfloat16")
    with pytest.raises(ValueError, match="dtypes must be some of float64, float32, bfloat16"):
        check(RmsNorm, "float8")


def test_the_largest_number_of_a_format():
    assert largest_number("float16") == np.finfo(np.float16).max
    assert largest_number("float32") == np.finfo(np.float32).max
