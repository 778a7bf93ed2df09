import tracemalloc

import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.contract import WithState
from functional_lm.layers import selective_scan
from functional_lm.layers.recurrent.selective_scan import Inputs
from functional_lm.testing import certify

test_certified = certify("selective_scan")


def draw(T, B=2, H=6, G=2, P=3, N=5, dtype=np.float64):
    """Return params, x and a cotangent of y."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    inputs = Inputs(
        normal(B, T, H, P), np.exp(normal(B, T, H)), normal(B, T, G, N), normal(B, T, G, N)
    )
    params = selective_scan.init((0,), n_heads=H, dtype=dtype)
    state = (B, H, N, P)
    return params, WithState(inputs, normal(*state)), WithState(normal(B, T, H, P), normal(*state))


def run(params, x, g, **keywords):
    y, residuals = selective_scan.forward(params, x, **keywords)
    return y, *selective_scan.vjp(residuals, g)


def assert_close(tree, other):
    for path, one, two in pytree.zip_with_path(tree, other):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-12, err_msg=path)


@pytest.mark.parametrize("chunk_size", [2, 5, 12, 13, 64])
def test_chunks_of_any_size_give_what_single_positions_give(chunk_size):
    inputs = draw(13)
    assert_close(run(*inputs, chunk_size=1), run(*inputs, chunk_size=chunk_size))


def test_no_positions_leave_the_state():
    params, x, g = draw(0)
    y, _, d_x = run(params, x, g)
    assert y.x.shape == (2, 0, 6, 3)
    np.testing.assert_array_equal(y.state, x.state)
    np.testing.assert_array_equal(d_x.state, g.state)


def test_a_text_may_come_in_pieces():
    params, x, g = draw(13)
    whole, d_params, d_x = run(params, x, g, chunk_size=4)
    first, last = (WithState(Inputs(*(p[:, part] for p in x.x)), x.state) for part in PIECES)
    y1, residuals1 = selective_scan.forward(params, first, chunk_size=4)
    y2, residuals2 = selective_scan.forward(params, last._replace(state=y1.state), chunk_size=4)
    assert_close(whole, WithState(np.concatenate([y1.x, y2.x], axis=1), y2.state))
    d2, d_last = selective_scan.vjp(residuals2, WithState(g.x[:, PIECES[1]], g.state))
    d1, d_first = selective_scan.vjp(residuals1, WithState(g.x[:, PIECES[0]], d_last.state))
    assert_close(d_params, pytree.add(d1, d2))
    pairs = zip(d_first.x, d_last.x, strict=True)
    joined = Inputs(*(np.concatenate(pair, axis=1) for pair in pairs))
    assert_close(d_x, WithState(joined, d_first.state))


PIECES = slice(6), slice(6, None)


def test_positions_without_a_step_change_no_state():
    params, x, _ = draw(7)
    x.x.dt[:, 4:] = 0.0
    y, _ = selective_scan.forward(params, x)
    short = Inputs(*(part[:, :4] for part in x.x))
    expected, _ = selective_scan.forward(params, x._replace(x=short))
    np.testing.assert_allclose(y.state, expected.state, rtol=1e-13)


def test_decays_that_vanish_neither_overflow_nor_disturb_others():
    params, x, g = draw(40, dtype=np.float32)
    x.x.dt[:, 5::7] = 1e4
    y, d_params, d_x = run(params, x, g)
    for leaf in pytree.leaves((y, d_params, d_x)):
        assert np.isfinite(leaf).all()
    changed = WithState(x.x._replace(x=x.x.x.copy()), x.state)
    changed.x.x[:, :5] += 1.0  # forgotten from position 5 on
    after, _ = selective_scan.forward(params, changed)
    np.testing.assert_array_equal(after.x[:, 5:], y.x[:, 5:])


def peak(T):
    """Return the bytes that forward and vjp need at most at once, apart from their arguments."""
    params, x, g = draw(T, B=1, dtype=np.float32)
    tracemalloc.start()
    try:
        run(params, x, g)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_text_and_not_with_its_square():
    assert peak(1024) < 2.1 * peak(512)


def test_rates_are_drawn_between_1_and_16():
    params = selective_scan.init((0,), n_heads=1000)
    rates = np.exp(params["A_log"])
    assert 1 <= rates.min() < 1.1
    assert 15.9 < rates.max() < 16.0001
    assert rates.mean() == pytest.approx(8.5, rel=0.05)
    assert (params["D"] == 1).all()


@pytest.mark.parametrize(
    ("x", "settings", "error", "says"),
    [
        (draw(3)[1].x, {}, TypeError, r"WithState\(x, state\): got Inputs"),
        (WithState(*draw(3)[1])._replace(x=draw(3)[2].x), {}, TypeError, r"Inputs\(x, dt, b, c\)"),
        (draw(3, H=6, G=4)[1], {}, ValueError, "multiple of groups.* got H=6, G=4"),
        (draw(3, N=0)[1], {}, ValueError, "no size zero.* N=0"),
        (draw(3)[1], {"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
    ],
)
def test_bad_input_is_named(x, settings, error, says):
    params = selective_scan.init((0,), n_heads=6, dtype=np.float64)
    with pytest.raises(error, match=says):
        selective_scan.forward(params, x, **settings)
