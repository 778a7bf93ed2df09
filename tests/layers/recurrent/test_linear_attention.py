import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.contract import WithState
from functional_lm.heads import QKV
from functional_lm.layers import gated_delta_rule, linear_attention
from functional_lm.testing import certify

test_certified = certify("linear_attention")


def draw(layer, T=37, H=3, K=5, Kv=4):
    """Return inputs, and a cotangent of the output."""
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, T, H, size)) for size in (K, K, Kv, Kv))
    beta, log_decay = rng.uniform(size=(2, T, H)), -rng.exponential(size=(2, T, H))
    gates = (beta, log_decay) if layer is gated_delta_rule else ()
    state, d_state = rng.standard_normal((2, 2, H, K, Kv))
    return WithState(layer.Inputs(q, k / 3, v, *gates), state), WithState(g, d_state)


BOTH = pytest.mark.parametrize("layer", [linear_attention, gated_delta_rule])


@BOTH
@pytest.mark.parametrize("chunk_size", [2, 8, 36, 64])
def test_the_chunks_change_nothing(layer, chunk_size):
    x, g = draw(layer)
    results = []
    for size in (1, chunk_size):
        y, residuals = layer.forward({}, x, chunk_size=size)
        results.append((y, layer.vjp(residuals, g)[1]))
    for path, one, other in pytree.zip_with_path(*results):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11, err_msg=path)


@BOTH
def test_a_text_may_come_in_pieces(layer):
    x, _ = draw(layer)
    whole, _ = layer.forward({}, x)
    state, start = x.state, 0
    for stop in (0, 1, 20, 37):
        piece = layer.Inputs(*(part[:, start:stop] for part in x.x))
        y, _ = layer.forward({}, WithState(piece, state), chunk_size=7)
        np.testing.assert_allclose(y.x, whole.x[:, start:stop], rtol=1e-12, atol=1e-12)
        state, start = y.state, stop
    np.testing.assert_allclose(state, whole.state, rtol=1e-12, atol=1e-12)


@BOTH
def test_the_residuals_grow_with_the_length(layer):
    sizes = []
    for T in (128, 256):
        x, _ = draw(layer, T)
        sizes.append(pytree.buffer_bytes(layer.forward({}, x)[1], without=x))
    assert sizes[1] <= 2 * sizes[0]


@BOTH
@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda x: x.x, TypeError, r"WithState\(x, state\): got \w+; pass a state of zeros"),
        (lambda x: x._replace(x=tuple(x.x)), TypeError, r"must be WithState\(\w+\(q, k, v.*tuple"),
        (lambda x: x._replace(state=x.state[:, :2]), ValueError, "state must have shape .* H=3"),
    ],
)
def test_bad_input_is_named(layer, spoil, error, says):
    with pytest.raises(error, match=says):
        layer.forward({}, spoil(draw(layer)[0]))


def test_it_is_the_sum_of_attention_scores_times_values():
    x, _ = draw(linear_attention)
    q, k, v = (part.swapaxes(1, 2) for part in x.x)
    weights = np.tril(q @ k.mT) / 5**0.5
    y, _ = linear_attention.forward({}, WithState(QKV(*x.x), np.zeros((2, 3, 5, 4))))
    np.testing.assert_allclose(y.x.swapaxes(1, 2), weights @ v, rtol=1e-11, atol=1e-11)
