"""The optional stage that compares bits."""

import numpy as np
import pytest

from functional_lm.testing import check_vjp

RNG = np.random.default_rng(0)
X, WEIGHT = RNG.standard_normal((3, 5, 7)), RNG.standard_normal((7, 7))


class ByExample:
    """A sum of outer products whose order does not depend on the batch."""

    @staticmethod
    def product(x, weight):
        return (x[..., None] * weight).sum(axis=-2)

    @classmethod
    def forward(cls, params, x):
        return cls.product(x, params["weight"]), (params, x)

    @classmethod
    def vjp(cls, residuals, g):
        params, x = residuals
        return {"weight": np.einsum("bti,btj->ij", x, g)}, cls.product(g, params["weight"].T)


class SplitByBatch(ByExample):
    """Sums the inner axis in other parts when the batch is larger."""

    @staticmethod
    def product(x, weight):
        cut = 3 if len(x) > 2 else 4
        return x[..., :cut] @ weight[:cut] + x[..., cut:] @ weight[cut:]


class Drifting(ByExample):
    """Adds in another order in every other call, as atomics do."""

    calls = 0

    @classmethod
    def vjp(cls, residuals, g):
        cls.calls += 1
        params, x = residuals
        d_weight = np.einsum("bti,btj->bij", x, g)
        order = d_weight if cls.calls % 4 else d_weight[::-1]
        total = np.zeros_like(params["weight"])
        for part in order:
            total = total + part
        return {"weight": total}, cls.product(g, params["weight"].T)


def check(layer, **settings):
    def reference(params, x):
        return x @ params["weight"]

    return check_vjp(layer, {"weight": WEIGHT}, X, reference=reference, **settings)


def test_a_layer_that_sums_each_example_by_itself():
    assert check(ByExample, bitwise=True)


def test_a_sum_that_is_split_by_the_size_of_the_batch():
    assert check(SplitByBatch)
    report = check(SplitByBatch, bitwise=True)
    assert report.causes == {"y": "not reproducible", "x": "not reproducible"}
    assert "y has other bits in float64 for x[0:1] alone" in str(report)
    assert "bitwise=True" in report.reproduce


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_sum_in_another_order_in_each_call(dtype):
    report = check(Drifting, bitwise=True, dtypes=dtype)
    (finding,) = [finding for finding in report.findings if finding.check == "bitwise"]
    assert (finding.leaf, finding.cause) == ("params.weight", "not reproducible")
    assert finding.message.endswith("in another call of the same inputs")
