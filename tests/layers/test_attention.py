import numpy as np
import pytest

from functional_lm.heads import CAUSAL, Visibility
from functional_lm.layers import attention
from functional_lm.layers.attention import QKV
from functional_lm.testing import certify

test_certified = certify("attention")


def seen(*settings, **more):
    return {"visibility": Visibility(*settings, **more)}


def draw(B=2, T=7, S=7, H=6, G=2, K=5, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (B, T, H, K), (B, S, G, K), (B, S, G, K)
    return QKV(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_causal_mask_leaks_nothing(dtype):
    x = draw(dtype=dtype)
    y, _ = attention.forward({}, x, visibility=CAUSAL)
    for t in range(7):
        k, v = x.k.copy(), x.v.copy()
        k[:, t:] *= -1e3
        v[:, t:] += 1e6
        changed, _ = attention.forward({}, QKV(x.q, k, v), visibility=CAUSAL)
        np.testing.assert_array_equal(changed[:, :t], y[:, :t])
        assert (changed[:, t:] != y[:, t:]).any()


def test_no_gradient_flows_to_keys_that_are_not_seen():
    _, residuals = attention.forward({}, draw(), visibility=CAUSAL)
    g = np.zeros((2, 7, 6, 5))
    g[:, :3] = 1.0
    _, d_x = attention.vjp(residuals, g)
    assert not d_x.k[:, 3:].any()
    assert not d_x.v[:, 3:].any()
    assert not d_x.q[:, 3:].any()


def test_a_row_that_sees_nothing_is_zero():
    mask = np.ones((2, 6, 7, 7), bool)
    mask[1, 2, 3] = False
    y, residuals = attention.forward({}, draw(), visibility=Visibility(mask=mask))
    assert not y[1, 3, 2].any()
    assert y[1, 3, 1].any()
    _, d_x = attention.vjp(residuals, np.ones_like(y))
    assert not d_x.q[1, 3, 2].any()


def test_scores_that_overflow_are_not_taken_for_masked_ones():
    x = draw(T=1, S=1, dtype=np.float32)
    x = QKV(np.full_like(x.q, -1e30), np.full_like(x.k, 1e30), x.v)
    with np.errstate(over="ignore", invalid="ignore"):
        y, _ = attention.forward({}, x)
    assert np.isnan(y).all()


def test_no_keys_at_all_give_zeros():
    y, residuals = attention.forward({}, draw(S=0))
    assert y.shape == (2, 7, 6, 5)
    assert not y.any()
    _, d_x = attention.vjp(residuals, np.ones_like(y))
    assert not d_x.q.any()


def test_groups_equal_repeated_heads():
    x = draw()
    y, _ = attention.forward({}, x)
    repeated = QKV(x.q, np.repeat(x.k, 3, axis=2), np.repeat(x.v, 3, axis=2))
    expected, _ = attention.forward({}, repeated)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-15)


def test_offset_queries_equal_the_last_rows():
    x = draw()
    full, _ = attention.forward({}, x, visibility=CAUSAL)
    last, _ = attention.forward({}, QKV(x.q[:, 4:], x.k, x.v), visibility=Visibility(True, 4))
    np.testing.assert_allclose(last, full[:, 4:], rtol=1e-13)


def test_weights_are_a_softmax_at_large_scores():
    x = draw(dtype=np.float32)
    x = QKV(x.q * 100, x.k * 100, np.ones_like(x.v))
    y, _ = attention.forward({}, x, visibility=CAUSAL)
    np.testing.assert_allclose(y, 1, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 99])
def test_a_window_sees_its_last_keys_only(n):
    x = draw()
    y, residuals = attention.forward({}, x, visibility=Visibility(True, window=n))
    distance = np.arange(7)[:, None] - np.arange(7)
    seen_keys = (distance >= 0) & (distance < n)
    np.testing.assert_array_equal(
        attention.weights(residuals) > 0, np.broadcast_to(seen_keys, (2, 6, 7, 7))
    )
    np.testing.assert_allclose(attention.weights(residuals).sum(-1), 1, rtol=1e-14)
    masked, _ = attention.forward({}, x, visibility=Visibility(mask=seen_keys))
    np.testing.assert_array_equal(y, masked)


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
    ],
)
def test_bad_input_is_named(x, settings, error, says):
    with pytest.raises(error, match=says):
        attention.forward({}, x, **settings)
