import tracemalloc

import numpy as np
import pytest

from functional_lm.layers import unembedding
from functional_lm.losses import cross_entropy, linear_cross_entropy
from functional_lm.testing import certify

test_certified = certify("linear_cross_entropy")


def draw(*leading, V=11, D=7, dtype=np.float64):
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((V, D)), rng.standard_normal((*leading, D))
    targets = rng.integers(0, V, leading)
    return {"weight": weight.astype(dtype)}, x.astype(dtype), targets


def two_layers(params, x, targets, g):
    logits, r_unembedding = unembedding.forward(params, x)
    loss, r_loss = cross_entropy.forward({}, logits, targets=targets)
    _, d_logits = cross_entropy.vjp(r_loss, g)
    return loss, *unembedding.vjp(r_unembedding, d_logits)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 4, 35, 256])
@pytest.mark.parametrize("V", [11, 4099])
def test_it_is_the_unembedding_and_the_cross_entropy(V, chunk_size, recompute):
    params, x, targets = draw(5, 7, V=V)
    targets[1, 2] = targets[4, 6] = -100
    loss, residuals = linear_cross_entropy.forward(
        params, x, targets=targets, chunk_size=chunk_size, recompute=recompute
    )
    d_params, d_x = linear_cross_entropy.vjp(residuals, -1.7)
    expected, d_expected, d_x_expected = two_layers(params, x, targets, -1.7)
    assert loss == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(d_params["weight"], d_expected["weight"], rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(d_x, d_x_expected, rtol=1e-11, atol=1e-15)


def test_rows_without_a_target_do_not_count():
    params, x, targets = draw(5)
    targets[1] = targets[3] = -100
    x[3] = np.nan
    loss, residuals = linear_cross_entropy.forward(params, x, targets=targets)
    kept = targets != -100
    expected, _ = linear_cross_entropy.forward(params, x[kept], targets=targets[kept])
    assert loss == expected
    d_params, d_x = linear_cross_entropy.vjp(residuals, 1.0)
    assert np.isfinite(d_params["weight"]).all()
    assert not d_x[~kept].any()
    assert d_x[kept].all()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("N", [0, 3])
def test_nothing_kept_gives_zero(N, recompute):
    params, x, targets = draw(N)
    loss, residuals = linear_cross_entropy.forward(
        params, x, targets=np.full_like(targets, -100), recompute=recompute
    )
    assert loss == 0
    d_params, d_x = linear_cross_entropy.vjp(residuals, 1.0)
    assert not d_params["weight"].any()
    assert d_x.shape == (N, 7)
    assert not d_x.any()


@pytest.mark.parametrize("settings", [{}, {"frozen": True}, {"recompute": True}], ids=str)
@pytest.mark.parametrize("V", [11, 4099])
def test_a_frozen_weight_costs_no_product(V, settings, monkeypatch):
    params, x, targets = draw(5, 7, V=V)
    targets[1, 2] = -100
    _, expected = linear_cross_entropy.vjp(
        linear_cross_entropy.forward(params, x, targets=targets, chunk_size=8)[1], -1.7
    )
    wanted = []
    in_chunks = linear_cross_entropy._in_chunks
    monkeypatch.setattr(
        linear_cross_entropy,
        "_in_chunks",
        lambda *args: wanted.append(args[-2:]) or in_chunks(*args),
    )
    _, residuals = linear_cross_entropy.forward(
        params, x, targets=targets, chunk_size=8, **settings
    )
    found = linear_cross_entropy.input_vjp(residuals, -1.7)
    np.testing.assert_array_equal(found, expected)
    assert (
        wanted
        == {
            "": [(True, True)],
            "frozen": [(True, False)],
            "recompute": [(False, False), (True, False)],
        }["".join(settings)]
    )
    d_params, d_x = linear_cross_entropy.vjp(residuals, -1.7)  # as if nothing were frozen
    np.testing.assert_array_equal(d_x, expected)
    assert d_params["weight"].shape == (V, 7)
    t_y = linear_cross_entropy.jvp(residuals, (params, x))
    assert -1.7 * t_y == pytest.approx(
        np.vdot(d_params["weight"], params["weight"]) + np.vdot(d_x, x), rel=1e-12
    )


def test_a_confident_prediction_keeps_its_accuracy():
    params = {"weight": np.array([[1000.0], [995.0]], np.float32)}
    x, targets = np.ones((1, 1), np.float32), np.array([0])
    loss, _ = linear_cross_entropy.forward(params, x, targets=targets)
    assert loss == pytest.approx(np.log1p(np.exp(-5.0)), rel=1e-4)


def test_init_draws_a_weight():
    weight = linear_cross_entropy.init((0,), vocab_size=1009, d_model=31)["weight"]
    assert weight.shape == (1009, 31)
    assert weight.dtype == np.float32
    assert weight.std() == pytest.approx(0.02, rel=0.02)


def peak(N, **settings):
    """Return the bytes that forward and vjp need at most at once, apart from their arguments."""
    params, x, targets = draw(N, V=1009, D=8, dtype=np.float32)
    tracemalloc.start()
    try:
        _, residuals = linear_cross_entropy.forward(params, x, targets=targets, **settings)
        linear_cross_entropy.vjp(residuals, 1.0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("recompute", [False, True])
def test_the_logits_of_all_tokens_never_exist_together(recompute):
    few, many = (peak(N, chunk_size=64, recompute=recompute) for N in (512, 4096))
    assert many < 2 * few
    assert many < 4096 * 1009 * 4 / 10  # a tenth of the logits


def test_a_loss_alone_keeps_no_gradient():
    params, x, targets = draw(5)
    _, residuals = linear_cross_entropy.forward(params, x, targets=targets, recompute=True)
    assert residuals.d_weight is residuals.d_x is None


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"targets": np.array([0, 11, 1])}, ValueError, r"\[0, 11\), or ignore_index=-100: got 11"),
        ({"targets": np.array([0, 1])}, ValueError, r"leading shape of x, \(3,\): got \(2,\)"),
        ({"targets": np.zeros(3)}, TypeError, "float64"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1: got 0"),
        ({"recompute": "no"}, TypeError, "recompute must be True or False"),
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing must lie in"),
        ({"z_loss": -1.0}, ValueError, "z_loss must be finite and at least 0"),
        ({"soft_cap": 0.0}, ValueError, "soft_cap must be finite and at least"),
        ({"ignore_index": None}, TypeError, "ignore_index must be an integer: got None"),
    ],
)
def test_bad_input_is_named(settings, error, says):
    params, x, targets = draw(3)
    with pytest.raises(error, match=says):
        linear_cross_entropy.forward(params, x, **{"targets": targets, **settings})
