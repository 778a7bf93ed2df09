import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.compose import bind
from functional_lm.heads import CAUSAL
from functional_lm.layers import linear
from functional_lm.models import multi_latent_attention
from functional_lm.testing import certify

test_certified = certify("multi_latent_attention")

SIZES = {"d_model": 24, "n_heads": 3, "kv_rank": 7, "rope_size": 4}
X, G = np.random.default_rng(0).standard_normal((2, 2, 9, 24))


@pytest.mark.parametrize(
    ("others", "window"),
    [
        ({}, None),
        ({"q_rank": 5, "head_size": 6, "value_size": 2, "rope_pairing": "half"}, None),
        ({"kv": bind(linear, bias=True), "rope_theta": 100.0, "sinks": True, "soft_cap": 0.5}, 3),
    ],
    ids=str,
)
def test_steps_equal_the_forward(others, window):
    visibility = CAUSAL._replace(window=window)
    layer = bind(multi_latent_attention, **SIZES, **others, visibility=visibility)
    params = layer.init((0,), dtype=np.float64)
    params = pytree.map(
        lambda leaf: leaf + 0.1 * np.cos(np.arange(leaf.size)).reshape(leaf.shape), params
    )
    y, _ = layer.forward(params, X, positions=np.arange(9))
    cache = layer.init_cache(params, 2, 9)
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        found, cache = layer.step(params, X[:, start:stop], cache)
        np.testing.assert_allclose(found, y[:, start:stop], rtol=0, atol=1e-12)
    assert cache.latents.shape == (2, 9, 7 + 1 + 4)
    assert layer.context_flops(100) == layer.context_flops(window or 100)


def test_tiles_are_the_same_function():
    layer = bind(multi_latent_attention, **SIZES)
    params = layer.init((0,), dtype=np.float64)
    results = []
    for kind in ("materialised", "tiled"):
        y, residuals = layer.forward(params, X, positions=np.arange(9), attention=kind)
        weights = multi_latent_attention.attention_weights(residuals)
        results.append([weights, y, *pytree.leaves(layer.vjp(residuals, G))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    np.testing.assert_allclose(results[0][0].sum(axis=-1), 1.0)


def test_positions_act_through_the_rotary_part_alone():
    layer = bind(multi_latent_attention, **SIZES)
    params = layer.init((0,), dtype=np.float64)
    here, _ = layer.forward(params, X, positions=np.arange(9))
    apart, _ = layer.forward(params, X, positions=2 * np.arange(9))
    assert abs(here - apart).max() > 1e-3
    params["kv_down"]["weight"][:, -4:] = 0.0
    here, _ = layer.forward(params, X, positions=np.arange(9))
    apart, _ = layer.forward(params, X, positions=2 * np.arange(9))
    np.testing.assert_array_equal(here, apart)


@pytest.mark.parametrize("wrong", [{"n_heads": 5}, {"rope_size": 12}], ids=str)
def test_settings_of_another_init_are_refused(wrong):
    params = multi_latent_attention.init((0,), **SIZES)
    settings = {"n_heads": 3, "rope_size": 4, **wrong}
    with pytest.raises(ValueError, match=r"q must make|kv must make"):
        multi_latent_attention.forward(
            params, X.astype(np.float32), positions=np.arange(9), **settings
        )
