from types import SimpleNamespace

import numpy as np
import pytest

from functional_lm.layers import dora, linear, lora
from functional_lm.testing import certify

test_certified = certify("lora")

SIZES = {"base": linear, "d_in": 5, "d_out": 7, "rank": 2, "dtype": np.float64}
TWO = ((4, 7), (0, 2))


def filled(layer, columns=None):
    """Return parameters whose A·B is not zero."""
    params = layer.init((0,), **SIZES, columns=columns)
    return params | {"b": np.random.default_rng(1).standard_normal(params["b"].shape)}


@pytest.mark.parametrize("layer", [lora, dora])
def test_starts_as_its_base(layer):
    params = layer.init((0,), **SIZES)
    x = np.random.default_rng(0).standard_normal((3, 5))
    expected, _ = linear.forward(params["base"], x)
    y, _ = layer.forward(params, x, base=linear, alpha=4.0)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("layer", [lora, dora])
@pytest.mark.parametrize("settings", [{}, {"columns": TWO, "rslora": True}])
def test_merged_into_its_base(layer, settings):
    params = filled(layer, settings.get("columns"))
    x = np.random.default_rng(0).standard_normal((3, 5))
    y, _ = layer.forward(params, x, base=linear, alpha=4.0, **settings)
    merged = layer.merge(params, alpha=4.0, **settings)
    np.testing.assert_allclose(linear.forward(merged, x)[0], y, rtol=1e-12)


def test_unmerged_with_the_opposite_alpha():
    params = filled(lora)
    merged = params | {"base": lora.merge(params, alpha=4.0)}
    weight = lora.merge(merged, alpha=-4.0)["weight"]
    np.testing.assert_allclose(weight, params["base"]["weight"], rtol=1e-13)


def test_the_scale_is_alpha_over_the_rank_or_its_root():
    params, x = filled(lora), np.ones((1, 5))
    base, _ = linear.forward(params["base"], x)
    plain, root = (
        lora.forward(params, x, base=linear, alpha=3.0, rslora=r)[0] - base for r in (False, True)
    )
    np.testing.assert_allclose(plain, 1.5 * (x @ params["a"] @ params["b"]), rtol=1e-12)
    np.testing.assert_allclose(root, plain * 2**0.5, rtol=1e-12)


@pytest.mark.parametrize("layer", [lora, dora])
def test_rank_zero_is_refused(layer):
    with pytest.raises(ValueError, match="rank must be at least 1: got 0"):
        layer.init((0,), **SIZES | {"rank": 0})


@pytest.mark.parametrize("layer", [lora, dora])
def test_columns_of_a_that_the_ranges_do_not_share_are_refused(layer):
    params = filled(layer, TWO)
    uneven = params | {"a": params["a"][:, :3]}
    with pytest.raises(ValueError, match="a must have as many columns for each of the 2 ranges"):
        layer.forward(uneven, np.ones((1, 5)), base=linear, alpha=4.0, columns=TWO)


@pytest.mark.parametrize("layer", [lora, dora])
def test_what_the_base_keeps_is_not_written_to(layer):
    kept = []

    def forward(params, x):
        y, _ = linear.forward(params, x)
        kept.extend([y, y.copy()])
        return y, None

    base, side = SimpleNamespace(forward=forward), {"alpha": 4.0, "rate": 0.5, "key": (1,)}
    layer.forward(filled(layer), np.ones((3, 5)), base=base, **side)
    np.testing.assert_array_equal(*kept)
