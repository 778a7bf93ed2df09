import tracemalloc

import numpy as np
import pytest

from functional_lm.heads import CAUSAL, QKV, Visibility
from functional_lm.layers import attention, flash_attention
from functional_lm.speed import threads
from functional_lm.testing import certify

test_certified = certify("flash_attention")

TILES = [(1, 1), (3, 2), (2, 5), (7, 13), (128, 512)]


def seen(*settings, **more):
    return {"visibility": Visibility(*settings, **more)}


def draw(B=2, T=7, S=7, H=6, G=2, K=5, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (B, T, H, K), (B, S, G, K), (B, S, G, K)
    return QKV(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))


def some_mask(B, H, T, S):
    mask = np.random.default_rng(1).random((B, H, T, S)) < 0.6
    mask[0, 1, 2] = False
    return mask


@pytest.mark.parametrize(("block_q", "block_k"), TILES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        seen(True),
        seen(True, 5),
        seen(True, 4, window=3),
        seen(True, 4, window=7, mask=some_mask(2, 6, 13, 17)),
        seen(True, -4),
        seen(mask=some_mask(2, 6, 13, 17)),
        seen(mask=some_mask(1, 2, 13, 17)[0, 1]),
        seen(mask=some_mask(2, 6, 13, 17)[:, :1, :1]),
        seen(True, 3, mask=some_mask(2, 6, 13, 17)),
    ],
    ids=lambda settings: "+".join(settings) or "full",
)
def test_it_is_attention(settings, block_q, block_k):
    x = draw(T=13, S=17)
    y, residuals = attention.forward({}, x, **settings)
    tiled, tiled_residuals = flash_attention.forward(
        {}, x, block_q=block_q, block_k=block_k, **settings
    )
    np.testing.assert_allclose(tiled, y, rtol=1e-13, atol=1e-15)
    g = np.random.default_rng(2).standard_normal(y.shape)
    _, d_x = attention.vjp(residuals, g)
    _, tiled_d_x = flash_attention.vjp(tiled_residuals, g)
    for ours, plain in zip(tiled_d_x, d_x, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-11, atol=1e-14)


def test_the_default_tiles_at_a_long_text():
    x = draw(B=1, T=301, S=1201, H=2, G=1)
    y, _ = attention.forward({}, x, visibility=Visibility(True, 900))
    tiled, _ = flash_attention.forward({}, x, visibility=Visibility(True, 900))
    np.testing.assert_allclose(tiled, y, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_causal_mask_leaks_nothing(dtype):
    x = draw(dtype=dtype)
    tiles = {"block_q": 3, "block_k": 2}
    y, _ = flash_attention.forward({}, x, visibility=CAUSAL, **tiles)
    for t in range(7):
        k, v = x.k.copy(), x.v.copy()
        k[:, t:] *= -1e3
        v[:, t:] += 1e6
        changed, _ = flash_attention.forward({}, QKV(x.q, k, v), visibility=CAUSAL, **tiles)
        np.testing.assert_array_equal(changed[:, :t], y[:, :t])
        assert (changed[:, t:] != y[:, t:]).any()


def test_no_gradient_flows_to_keys_that_are_not_seen():
    _, residuals = flash_attention.forward({}, draw(), visibility=CAUSAL, block_q=3, block_k=2)
    g = np.zeros((2, 7, 6, 5))
    g[:, :3] = 1.0
    _, d_x = flash_attention.vjp(residuals, g)
    assert not d_x.k[:, 3:].any()
    assert not d_x.v[:, 3:].any()
    assert not d_x.q[:, 3:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_that_sees_nothing_is_zero(dtype):
    mask = np.ones((2, 6, 7, 7), bool)
    mask[1, 2, 3] = False
    x = draw(dtype=dtype)
    y, residuals = flash_attention.forward(
        {}, x, visibility=Visibility(mask=mask), block_q=2, block_k=3
    )
    assert not y[1, 3, 2].any()
    assert y[1, 3, 1].any()
    _, d_x = flash_attention.vjp(residuals, np.ones_like(y))
    assert not d_x.q[1, 3, 2].any()
    assert d_x.q[1, 3, 1].any()


def test_scores_that_overflow_are_not_taken_for_masked_ones():
    x = draw(T=1, S=1, dtype=np.float32)
    x = QKV(np.full_like(x.q, -1e30), np.full_like(x.k, 1e30), x.v)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        y, _ = flash_attention.forward({}, x)
    assert np.isnan(y).all()


@pytest.mark.parametrize(("T", "S"), [(7, 0), (0, 7), (0, 0)])
def test_no_keys_or_no_queries(T, S):
    y, residuals = flash_attention.forward({}, draw(T=T, S=S))
    assert y.shape == (2, T, 6, 5)
    assert not y.any()
    _, d_x = flash_attention.vjp(residuals, np.ones_like(y))
    assert [leaf.shape for leaf in d_x] == [(2, T, 6, 5), (2, S, 2, 5), (2, S, 2, 5)]
    assert not any(leaf.any() for leaf in d_x)


def test_weights_are_a_softmax_at_large_scores():
    x = draw(T=97, S=97, dtype=np.float32)
    x = QKV(x.q * 100, x.k * 100, np.ones_like(x.v))
    y, _ = flash_attention.forward({}, x, visibility=CAUSAL, block_q=11, block_k=17)
    np.testing.assert_allclose(y, 1, rtol=1e-6)


def peak(T):
    """Return the bytes that forward and vjp need at most at once, apart from their arguments."""
    x = draw(B=1, T=T, S=T, H=2, G=2, K=8, dtype=np.float32)
    g = np.ones_like(x.q)
    tracemalloc.start()
    try:
        _, residuals = flash_attention.forward({}, x, visibility=CAUSAL)
        flash_attention.vjp(residuals, g)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_text_and_not_with_its_square(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 1)  # a peak of two threads depends on their turns
    short, long = peak(1024), peak(2048)
    assert long < 2.2 * short
    assert long < 2048**2  # a quarter of what the scores of one head would take


@pytest.mark.parametrize(
    ("x", "settings", "error", "says"),
    [
        (draw(H=6, G=4), {}, ValueError, r"multiple of key/value heads.* got H=6, G=4"),
        (draw(), seen(mask=np.ones((7, 7))), TypeError, "booleans: got float64"),
        (draw(), seen(mask=np.ones((3, 7), bool)), ValueError, r"got \(3, 7\)"),
        (draw(), seen(offset=2), ValueError, "pass causal=True"),
        (draw(), {"block_q": 0}, ValueError, "block_q must be at least 1: got 0"),
        (draw(), {"block_k": 2.5}, TypeError, "block_k must be an integer"),
        (tuple(draw()), {}, TypeError, r"x must be QKV\(q, k, v\): got tuple"),
    ],
)
def test_bad_input_is_named(x, settings, error, says):
    with pytest.raises(error, match=says):
        flash_attention.forward({}, x, **settings)
