import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.layers import rotary, rotary_attention
from functional_lm.models import self_attention
from functional_lm.testing import certify

test_certified = certify("self_attention")


def test_named_slices_are_views_with_their_own_variance():
    params = self_attention.init((0,), d_model=240, n_heads=6, n_kv_heads=2, output_scale=0.5)
    slices = self_attention.named_slices(params, n_heads=6, n_kv_heads=2)
    shapes = {name: part.shape for name, part in slices.items()}
    assert shapes == {"query": (240, 240), "key": (240, 80), "value": (240, 80), "out": (240, 240)}
    assert slices["query"].std() == pytest.approx((2 / 480) ** 0.5, rel=0.02)
    assert slices["key"].std() == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    assert slices["value"].std() == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    assert slices["out"].std() == pytest.approx((2 / 480) ** 0.5 / 2, rel=0.02)
    assert (slices["key"] != slices["value"]).any()
    assert (slices["query"][:, :80] != slices["key"]).any()
    assert all(np.shares_memory(slices[n], params["qkv"]) for n in ("query", "key", "value"))


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
    with pytest.raises(ValueError, match=r"n_heads must divide|qkv must have shape"):
        self_attention.forward(
            params, x, n_heads=n_heads, n_kv_heads=n_kv_heads, positions=np.arange(2)
        )


@pytest.mark.parametrize("causal", [True, False])
def test_all_kinds_are_one_function(causal):
    rng = np.random.default_rng(0)
    params = self_attention.init((0,), d_model=24, n_heads=6, n_kv_heads=2, dtype=np.float64)
    x, g = rng.standard_normal((2, 2, 140, 24))
    side = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(140), "causal": causal}
    results = []
    for kind in self_attention.KINDS:
        y, residuals = self_attention.forward(params, x, **side, attention=kind)
        results.append([y, *pytree.leaves(self_attention.vjp(residuals, g))])
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


@pytest.mark.parametrize("pairing", ["interleaved", "half"])
def test_keys_and_values_are_those_of_the_projection(pairing):
    rng = np.random.default_rng(0)
    params = self_attention.init((0,), d_model=24, n_heads=6, n_kv_heads=2, dtype=np.float64)
    x, positions = rng.standard_normal((2, 7, 24)), np.arange(7)
    side = {"n_heads": 6, "n_kv_heads": 2, "positions": positions, "rope_pairing": pairing}
    slices = self_attention.named_slices(params, n_heads=6, n_kv_heads=2)
    k = (x @ slices["key"]).reshape(2, 7, 2, 4)
    k, _ = rotary.forward({}, k, positions=positions, pairing=pairing)
    v = (x @ slices["value"]).reshape(2, 7, 2, 4)
    for kind in ("materialised", "tiled"):
        _, residuals = self_attention.forward(params, x, **side, attention=kind)
        found = self_attention.keys_and_values(residuals)
        np.testing.assert_allclose(found[0], k, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found[1], v, rtol=0, atol=1e-13)
    _, residuals = self_attention.forward(params, x, **side, causal=False)
    with pytest.raises(ValueError, match="causal attention without a mask"):
        self_attention.keys_and_values(residuals)
