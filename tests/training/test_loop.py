import chex
import numpy as np
import pytest

from functional_lm.layers import linear
from functional_lm.models import build
from functional_lm.optimizers import adamw, chain, clip_by_global_norm
from functional_lm.text import CharTokenizer, batch_at
from functional_lm.training import init_state, train

MODEL = build("llama", vocab_size=13, d_model=24, n_heads=2, n_layers=1, max_seq_len=7, dropout=0.1)
TOKENS = np.arange(200) % 13
OPTIMIZER = chain(clip_by_global_norm(1.0), adamw(1e-2))


def batch(step):
    x, y = batch_at(TOKENS, (1,), step, batch_size=3, seq_len=7)
    return x, {"targets": y, "key": (2, step)}


def run(state, steps):
    return list(train(MODEL, state, optimizer=OPTIMIZER, batch_at=batch, steps=steps))


def start():
    return init_state(MODEL.init((0,)), OPTIMIZER)


def test_it_learns_and_reports():
    steps = run(start(), 60)
    assert [step.state.step for step in steps] == list(range(1, 61))
    assert steps[0].loss == pytest.approx(np.log(13), rel=0.05)
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert all(step.grad_norm > 0 and step.seconds > 0 for step in steps)


def test_the_gradient_norm_is_that_before_clipping():
    (plain,) = run(start(), 1)
    clipping = chain(clip_by_global_norm(1e-3), adamw(1e-2))
    state = init_state(start().params, clipping)
    (clipped,) = train(MODEL, state, optimizer=clipping, batch_at=batch, steps=1)
    assert clipped.grad_norm == plain.grad_norm > 0.1


def test_a_state_goes_on_to_the_same_bits():
    straight = run(start(), 6)
    first = run(start(), 3)
    second = run(first[-1].state, 6)
    assert len(second) == 3
    chex.assert_trees_all_equal(second[-1].state.params, straight[-1].state.params)
    assert second[-1].loss == straight[-1].loss
    assert run(second[-1].state, 6) == []


def test_states_are_kept_apart():
    state = start()
    before = state.params["embedding"]["weight"].copy()
    steps = run(state, 2)
    np.testing.assert_array_equal(state.params["embedding"]["weight"], before)
    first, second = (step.state.params["embedding"]["weight"] for step in steps)
    assert (first != second).any()


def test_a_gradient_that_is_not_finite_stops_the_loop():
    class Broken:
        forward = staticmethod(lambda params, x: (np.float64(0), None))
        vjp = staticmethod(lambda residuals, g: ({"weight": np.full((2, 2), np.nan)}, None))

    state = init_state(linear.init((0,), d_in=2, d_out=2, dtype=np.float64), OPTIMIZER)
    steps = train(
        Broken, state, optimizer=OPTIMIZER, batch_at=lambda step: (np.zeros(1), {}), steps=1
    )
    with pytest.raises(FloatingPointError, match="weight has 4 entries"):
        next(steps)


def test_frozen_leaves_stay_and_the_optimizer_never_sees_them():
    params = {"weight": np.ones((2, 3)), "bias": np.zeros(3)}
    x, targets = np.ones((4, 2)), np.zeros((4, 3))

    class Squares:
        forward = staticmethod(_squares)
        vjp = staticmethod(lambda residuals, g: linear.vjp(residuals[0], g * residuals[1]))

    def only_bias(path):
        return path == "bias"

    seen = []
    optimizer = chain(clip_by_global_norm(10.0), adamw(0.1))
    state = init_state(params, optimizer, trainable=only_bias)
    steps = train(
        Squares,
        state,
        optimizer=optimizer,
        batch_at=lambda step: (x, {"targets": targets}),
        steps=3,
        inspect=lambda *given: seen.append(given),
        trainable=only_bias,
    )
    *_, last = steps
    assert last.state.params["weight"] is params["weight"]
    assert (last.state.params["bias"] != 0).all()
    assert last.grad_norm > 0
    assert all(grads["weight"] is None is updates["weight"] for _, _, grads, updates, _ in seen)
    assert all(inputs is x for *_, inputs in seen)
    moments = last.state.optimizer_state[1].mu
    assert moments["weight"] is None
    assert moments["bias"].shape == (3,)


def _squares(params, x, *, targets):
    y, residuals = linear.forward(params, x)
    return ((y - targets) ** 2).sum(), (residuals, 2 * (y - targets))


def test_selecting_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one leaf: got none of bias, weight"):
        init_state(
            {"weight": np.ones(1), "bias": np.ones(1)}, OPTIMIZER, trainable=lambda path: False
        )


def test_shakespeare_is_learned(shakespeare):
    tokenizer = CharTokenizer.train(shakespeare)
    tokens = tokenizer.encode(shakespeare)
    model = build("llama", vocab_size=65, d_model=64, n_heads=2, n_layers=2, max_seq_len=32)
    optimizer = chain(clip_by_global_norm(1.0), adamw(5e-3))

    def window(step):
        x, y = batch_at(tokens, (1,), step, batch_size=8, seq_len=32)
        return x, {"targets": y}

    state = init_state(model.init((0,)), optimizer)
    steps = train(model, state, optimizer=optimizer, batch_at=window, steps=200)
    losses = [step.loss for step in steps]
    assert losses[0] == pytest.approx(np.log(65), rel=0.02)
    share = np.bincount(tokens) / len(tokens)
    without_context = -np.sum(share * np.log(share))
    assert np.mean(losses[-20:]) < 0.8 * without_context
