import numpy as np
import pytest

from functional_lm.compose import bind
from functional_lm.layers import delta_gates, gated_delta_rule, linear_attention, rms_norm
from functional_lm.models import linear_mixer
from functional_lm.testing import certify

test_certified = certify("linear_mixer")

SIZES = {"d_model": 12, "n_heads": 3, "key_size": 2, "value_size": 5}
CORES = {
    "linear_attention": {"core": bind(linear_attention, chunk_size=4)},
    "gated_delta_rule": {"core": bind(gated_delta_rule, chunk_size=4), "gates": delta_gates},
}
X = np.random.default_rng(0).standard_normal((3, 9, 12))

BOTH = pytest.mark.parametrize("name", CORES)


def make(name):
    layer = bind(linear_mixer, **SIZES, norm=bind(rms_norm, eps=0.1), **CORES[name])
    return layer, layer.init((0,), dtype=np.float64)


def test_each_projection_has_its_own_variance():
    sizes = {"d_model": 240, "n_heads": 6, "key_size": 20, "value_size": 30}
    params = linear_mixer.init((0,), **sizes, gates=delta_gates, output_scale=0.5)
    widths = (120, 120, 180, 180, 6, 6)
    parts = np.split(params["packed"]["weight"], np.cumsum(widths)[:-1], axis=1)
    for part, width in zip(parts, widths, strict=True):
        assert part.shape == (240, width)
        assert part.std() == pytest.approx((2 / (240 + width)) ** 0.5, rel=0.05)
    assert params["out"]["weight"].std() == pytest.approx((2 / 420) ** 0.5 / 2, rel=0.02)


@BOTH
def test_steps_equal_the_forward(name):
    layer, params = make(name)
    y, _ = layer.forward(params, X, positions=np.arange(9))
    cache = layer.init_cache(params, 3, 9)
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        found, cache = layer.step(params, X[:, start:stop], cache)
        np.testing.assert_allclose(found, y[:, start:stop], rtol=0, atol=1e-13)


@BOTH
def test_padding_changes_no_state(name):
    layer, params = make(name)
    lengths = np.array([1, 4, 9])
    y, cache = layer.step(params, X, layer.init_cache(params, 3, 9), lengths=lengths)
    for i, length in enumerate(lengths):
        alone = layer.init_cache(params, 1, 9)
        expected, after = layer.step(params, X[i : i + 1, :length], alone)
        np.testing.assert_allclose(y[i, :length], expected[0], rtol=0, atol=1e-13)
        for one, other in zip(cache, after, strict=True):
            np.testing.assert_allclose(one[i], other[0], rtol=0, atol=1e-13)


@BOTH
def test_the_cache_does_not_grow(name):
    layer, params = make(name)
    short, long = (layer.init_cache(params, 3, length) for length in (1, 1000))
    _, after = layer.step(params, X, short)
    assert [s.shape for s in short] == [s.shape for s in long] == [s.shape for s in after]
    assert layer.context_flops(1) == layer.context_flops(1000) == 4 * 3 * 2 * 5


def test_a_wrong_number_of_heads_is_refused():
    _, params = make("linear_attention")
    with pytest.raises(ValueError, match=r"H·\(2·K \+ Kv\) columns: got 27, H=4, Kv=5"):
        linear_mixer.forward(params, X, n_heads=4)
