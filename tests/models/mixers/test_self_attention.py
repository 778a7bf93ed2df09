import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.compose import bind, freeze
from functional_lm.heads import CAUSAL, FULL
from functional_lm.layers import attention, layer_norm, linear, prefix, rms_norm, rotary_attention
from functional_lm.models import self_attention
from functional_lm.testing import certify, check_vjp

test_certified = certify("self_attention")


def test_queries_keys_and_values_are_drawn_with_their_own_variance():
    params = self_attention.init((0,), d_model=240, n_heads=6, n_kv_heads=2, output_scale=0.5)
    query, key, value = np.split(params["qkv"]["weight"], [240, 320], axis=1)
    assert query.std() == pytest.approx((2 / 480) ** 0.5, rel=0.02)
    assert key.std() == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    assert value.std() == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    assert params["out"]["weight"].std() == pytest.approx((2 / 480) ** 0.5 / 2, rel=0.02)
    assert (key != value).any()
    assert (query[:, :80] != key).any()


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"d_model": 16, "n_heads": 5}, "n_heads must divide d_model: .*try 4 or 8"),
        ({"d_model": 16, "n_heads": 8, "n_kv_heads": 3}, "n_kv_heads must divide .*try 2 or 4"),
        ({"d_model": 16, "n_heads": 0}, "n_heads must be at least 1"),
    ],
)
def test_bad_sizes_name_what_would_do(sizes, says):
    with pytest.raises(ValueError, match=says):
        self_attention.init((0,), **sizes)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(5, 2), (16, 2), (12, 2), (6, None), (6, 3)])
def test_a_wrong_number_of_heads_is_refused(n_heads, n_kv_heads):
    params = self_attention.init((0,), d_model=24, n_heads=6, n_kv_heads=2)
    x = np.ones((1, 2, 24), np.float32)
    with pytest.raises(ValueError, match=r"values must have|x must have shape"):
        self_attention.forward(
            params, x, n_heads=n_heads, n_kv_heads=n_kv_heads, positions=np.arange(2)
        )


@pytest.mark.parametrize("visibility", [CAUSAL, FULL, CAUSAL._replace(window=50)], ids=str)
def test_all_kinds_are_one_function(visibility):
    rng = np.random.default_rng(0)
    params = self_attention.init((0,), d_model=24, n_heads=6, n_kv_heads=2, dtype=np.float64)
    x, g = rng.standard_normal((2, 2, 140, 24))
    side = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(140), "visibility": visibility}
    results = []
    for kind in self_attention.KINDS:
        y, residuals = self_attention.forward(params, x, **side, attention=kind)
        results.append(
            [
                self_attention.attention_weights(residuals),
                y,
                *pytree.leaves(self_attention.vjp(residuals, g)),
            ]
        )
    for auto, materialised, tiled in zip(*results, strict=True):
        np.testing.assert_array_equal(auto, materialised)
        np.testing.assert_allclose(tiled, materialised, rtol=0, atol=1e-12)


def test_auto_tiles_long_texts(monkeypatch):
    monkeypatch.setattr(self_attention, "LONG", 4)
    params = self_attention.init((0,), d_model=24, n_heads=6)
    kinds = []
    for length in (4, 5):
        x = np.ones((1, length, 24), np.float32)
        side = {"n_heads": 6, "positions": np.arange(length)}
        _, residuals = self_attention.forward(params, x, **side)
        kinds.append(type(residuals.attention))
    assert kinds == [rotary_attention.Residuals, self_attention.Unpacked]


def test_an_unknown_kind_is_refused():
    params = self_attention.init((0,), d_model=24, n_heads=6)
    x = np.ones((1, 2, 24), np.float32)
    with pytest.raises(ValueError, match="'auto' or 'materialised' or 'tiled': got 'flash'"):
        self_attention.forward(params, x, n_heads=6, positions=np.arange(2), attention="flash")


class Adapter:
    """A projection with a low-rank term beside the matrix."""

    @staticmethod
    def init(key, *, d_in, d_out, scale=1.0, dtype=np.float32):
        base = linear.init(key, d_in=d_in, d_out=d_out, scale=scale, dtype=dtype)
        down = linear.init((*key, 1), d_in=d_in, d_out=2, dtype=dtype)
        up = linear.init((*key, 2), d_in=2, d_out=int(np.sum(d_out)), dtype=dtype)
        return {"base": base, "down": down, "up": up}

    @staticmethod
    def forward(params, x):
        y, base = linear.forward(params["base"], x)
        h, down = linear.forward(params["down"], x)
        z, up = linear.forward(params["up"], h)
        return y + z, (base, down, up)

    @staticmethod
    def vjp(residuals, g):
        base, down, up = residuals
        d_base, d_x = linear.vjp(base, g)
        d_up, d_h = linear.vjp(up, g)
        d_down, d_branch = linear.vjp(down, d_h)
        return {"base": d_base, "down": d_down, "up": d_up}, d_x + d_branch


def test_another_projection_takes_the_place_of_one():
    layer = bind(self_attention, d_model=24, n_heads=6, n_kv_heads=2, qkv=Adapter)
    params = layer.init((0,), dtype=np.float64)
    assert set(params["qkv"]) == {"base", "down", "up"}
    x = np.random.default_rng(0).standard_normal((2, 3, 24))
    check_vjp(layer, params, x, positions=np.arange(3), own_inputs=False).raise_if_failed()


EXTRAS = [
    {},
    {"rope_theta": None},
    {"rope_theta": None, "alibi": True, "sinks": True},
    {"rope_size": 2, "soft_cap": 1.0, "value_size": 3},
    {"q_norm": rms_norm, "k_norm": layer_norm, "gate": linear, "sinks": True},
    {"prefix": bind(prefix, size=2, n_kv_heads=2, key_size=4, value_size=4)},
]


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("extras", EXTRAS, ids=str)
def test_steps_equal_the_forward(window, extras):
    settings = {"n_heads": 6, "n_kv_heads": 2, "rope_theta": 100.0, **extras}
    visibility = CAUSAL._replace(window=window)
    layer = bind(self_attention, d_model=24, **settings, visibility=visibility)
    params = pytree.map(
        lambda leaf: leaf + np.linspace(0, 1, leaf.size).reshape(leaf.shape),
        layer.init((0,), dtype=np.float64),
    )
    x = np.random.default_rng(0).standard_normal((2, 9, 24))
    y, _ = layer.forward(params, x, positions=np.arange(9))
    cache = layer.init_cache(params, 2, 9)
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        found, cache = layer.step(params, x[:, start:stop], cache)
        np.testing.assert_allclose(found, y[:, start:stop], rtol=0, atol=1e-13)


def test_a_prefix_is_in_the_cache_before_the_text():
    layer = bind(self_attention, d_model=24, n_heads=6, n_kv_heads=2, **EXTRAS[-1])
    params = layer.init((0,))
    cache = layer.init_cache(params, 3, 5)
    assert cache.lengths.tolist() == [2, 2, 2]
    assert cache.keys.shape == (3, 7, 2, 4)
    np.testing.assert_array_equal(cache.keys[1, :2], params["prefix"]["keys"])
    np.testing.assert_array_equal(cache.values[2, :2], params["prefix"]["values"])


def test_a_prefix_needs_causal_attention():
    layer = bind(self_attention, d_model=24, n_heads=6, n_kv_heads=2, **EXTRAS[-1])
    x, side = np.ones((1, 3, 24), np.float32), {"positions": np.arange(3), "visibility": FULL}
    with pytest.raises(ValueError, match="a prefix needs causal attention"):
        layer.forward(layer.init((0,)), x, **side)


def test_steps_read_the_window_only(monkeypatch):
    forward, lengths = attention.forward, []

    def recording(params, x, **settings):
        lengths.append(x.k.shape[1])
        return forward(params, x, **settings)

    monkeypatch.setattr(attention, "forward", recording)
    visibility = CAUSAL._replace(window=3)
    layer = bind(self_attention, d_model=24, n_heads=6, visibility=visibility)
    params = layer.init((0,))
    cache = layer.init_cache(params, 2, 30)
    x = np.ones((2, 4, 24), np.float32)
    _, cache = layer.step(params, x, cache, lengths=np.array([4, 3]))  # the second text is shorter
    for _ in range(5):
        _, cache = layer.step(params, x[:, :1], cache)
    assert lengths == [4] * 6


def test_the_fast_layer_runs_where_it_computes_the_same():
    x = np.random.default_rng(0).standard_normal((2, 5, 24))
    fast = []
    for extras in ({}, {"rope_size": 4}, {"key": (1,)}, {"attention_dropout": 0.1}, *EXTRAS[1:]):
        heads = {"n_heads": 6, "n_kv_heads": 2}
        layer = bind(self_attention, d_model=24, **heads, **{"key": None, **extras})
        params = layer.init((0,), dtype=np.float64)
        _, residuals = layer.forward(params, x, positions=np.arange(5))
        fast.append(isinstance(residuals.attention, rotary_attention.Residuals))
    assert fast == [True] * 4 + [False] * 5


def test_a_frozen_part_costs_no_gradient():
    layer = bind(self_attention, d_model=24, n_heads=6, **EXTRAS[4])
    params = layer.init((0,), dtype=np.float64)
    x, g = np.random.default_rng(0).standard_normal((2, 2, 5, 24))
    frozen = freeze(layer, params, lambda path: path.startswith("gate"))
    _, residuals = frozen.forward(params, x, positions=np.arange(5))
    d_params, d_x = frozen.vjp(residuals, g)
    _, residuals = layer.forward(params, x, positions=np.arange(5))
    expected, expected_x = layer.vjp(residuals, g)
    np.testing.assert_array_equal(d_x, expected_x)
    np.testing.assert_array_equal(d_params["gate"]["weight"], expected["gate"]["weight"])
    others = [d_params[name] for name in ("qkv", "q_norm", "k_norm", "out")]
    assert all(leaf is None for part in others for leaf in part.values())
