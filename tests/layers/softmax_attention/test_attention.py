import numpy as np
import pytest

from functional_lm.heads import CAUSAL, QKV, Visibility
from functional_lm.layers import attention, flash_attention
from functional_lm.testing import certify

test_certified = certify("attention")

BOTH = pytest.mark.parametrize(
    ("layer", "tiles"), [(attention, {}), (flash_attention, {"block_q": 3, "block_k": 2})]
)


def seen(*settings, **more):
    return {"visibility": Visibility(*settings, **more)}


def draw(B=2, T=7, S=7, H=6, G=2, K=5, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (B, T, H, K), (B, S, G, K), (B, S, G, K)
    return QKV(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_causal_mask_leaks_nothing(layer, tiles, dtype):
    x = draw(dtype=dtype)
    y, _ = layer.forward({}, x, visibility=CAUSAL, **tiles)
    for t in range(7):
        k, v = x.k.copy(), x.v.copy()
        k[:, t:] *= -1e3
        v[:, t:] += 1e6
        changed, _ = layer.forward({}, QKV(x.q, k, v), visibility=CAUSAL, **tiles)
        np.testing.assert_array_equal(changed[:, :t], y[:, :t])
        assert (changed[:, t:] != y[:, t:]).any()


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_that_sees_nothing_is_zero(layer, tiles, dtype):
    mask = np.ones((2, 6, 7, 7), bool)
    mask[1, 2, 3] = False
    y, residuals = layer.forward({}, draw(dtype=dtype), visibility=Visibility(mask=mask), **tiles)
    _, d_x = layer.vjp(residuals, np.ones_like(y))
    for result in (y, d_x.q):
        assert not result[1, 3, 2].any()
        assert result[1, 3, 1].any()


@BOTH
def test_scores_that_overflow_are_not_taken_for_masked_ones(layer, tiles):
    x = draw(T=1, S=1, dtype=np.float32)
    x = QKV(np.full_like(x.q, -1e30), np.full_like(x.k, 1e30), x.v)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        y, _ = layer.forward({}, x, **tiles)
    assert np.isnan(y).all()


@BOTH
def test_large_scores_give_weights_that_sum_to_one(layer, tiles):
    x = draw(T=97, S=97, dtype=np.float32)
    x = QKV(x.q * 100, x.k * 100, np.ones_like(x.v))
    y, _ = layer.forward({}, x, visibility=CAUSAL, **tiles)
    np.testing.assert_allclose(y, 1, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 99])
def test_a_window_sees_its_last_keys_only(n):
    _, residuals = attention.forward({}, draw(), visibility=Visibility(True, window=n))
    distance = np.arange(7)[:, None] - np.arange(7)
    weights = attention.weights(residuals)
    np.testing.assert_array_equal(
        weights > 0, np.broadcast_to((distance >= 0) & (distance < n), (2, 6, 7, 7))
    )
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-14)


@BOTH
@pytest.mark.parametrize(
    ("x", "settings", "error", "says"),
    [
        (draw(H=6, G=4), {}, ValueError, r"multiple of key/value heads.* got H=6, G=4"),
        (draw(), seen(mask=np.ones((7, 7))), TypeError, "booleans: got float64"),
        (draw(), seen(mask=np.ones((3, 7), bool)), ValueError, r"got \(3, 7\)"),
        (draw(), seen(offset=2), ValueError, "pass causal=True"),
        (draw(), seen(True, 0.5), TypeError, "offset must be an int"),
        (draw(), seen(window=3), ValueError, "window needs causal attention: got 3"),
        (draw(), seen(True, window=0), ValueError, "window must be at least 1"),
        (draw(), {"visibility": True}, TypeError, "must be a Visibility: got True"),
        (draw(), seen("no"), TypeError, "causal must be True or False"),
        (draw(K=0), {}, ValueError, "no size zero"),
        (tuple(draw()), {}, TypeError, r"x must be QKV\(q, k, v\): got tuple"),
        (draw(), {"soft_cap": 0.0}, ValueError, "soft_cap must be finite and at least 1e-30"),
        (draw(), {"alibi": 1}, TypeError, "alibi must be True or False"),
        (draw(), {"dropout": 1.5}, ValueError, r"dropout must lie in \[0, 1\]"),
    ],
)
def test_bad_input_is_named(layer, tiles, x, settings, error, says):
    with pytest.raises(error, match=says):
        layer.forward({}, x, **settings, **tiles)


@BOTH
def test_a_sink_takes_what_the_keys_leave(layer, tiles):
    x, mask = draw(), np.ones((2, 6, 7, 7), bool)
    mask[1, 2, 3] = False
    seen = Visibility(mask=mask)
    plain, _ = layer.forward({}, x, visibility=seen, **tiles)
    for sink, share in ((-50.0, 0.0), (50.0, 1.0)):
        params = {"sinks": np.full(6, sink)}
        y, residuals = layer.forward(params, x, visibility=seen, **tiles)
        np.testing.assert_allclose(y, (1 - share) * plain, rtol=0, atol=1e-15)
        assert not y[1, 3, 2].any()
        taken = 1 - layer.weights(residuals).sum(axis=-1)
        np.testing.assert_allclose(taken[0], share, rtol=0, atol=1e-12)
        assert taken[1, 2, 3] == 1.0
    params = layer.init((0,), n_sinks=6)
    assert {name: leaf.shape for name, leaf in params.items()} == {"sinks": (6,)}


@BOTH
def test_dropout_keeps_the_mean_and_drops_all_at_rate_one(layer, tiles):
    x = draw(T=61, S=61)._replace(v=np.ones((2, 61, 2, 5)))
    y, _ = layer.forward({}, x, dropout=0.3, key=(1,), **tiles)
    assert y.mean() == pytest.approx(1, rel=0.02)
    other, _ = layer.forward({}, x, dropout=0.3, key=(2,), **tiles)
    assert (other != y).any()
    y, residuals = layer.forward({}, x, dropout=1.0, key=(1,), **tiles)
    assert not y.any()
    assert not any(part.any() for part in layer.vjp(residuals, np.ones_like(y))[1])
    np.testing.assert_allclose(layer.weights(residuals).sum(-1), 1, rtol=1e-14)
