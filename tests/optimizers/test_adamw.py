import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import adam, adamw, chain, clip_by_global_norm

MASK = {"w": True, "blocks": ({"scale": False},)}


@pytest.mark.parametrize(
    "settings", [{}, {"b1": 0.8, "b2": 0.95, "eps": 1e-3}, {"weight_decay": 0.3}]
)
def test_equals_optax(assert_equals_optax, settings):
    assert_equals_optax(adamw(0.1, **settings), optax.adamw(0.1, mask=MASK, **settings))


@pytest.mark.parametrize("settings", [{}, {"b1": 0.8, "b2": 0.95, "eps": 1e-3}])
def test_adam_equals_optax(assert_equals_optax, settings):
    assert_equals_optax(adam(0.1, **settings), optax.adam(0.1, **settings))


def test_with_clipping_equals_optax(assert_equals_optax):
    assert_equals_optax(
        chain(clip_by_global_norm(0.5), adamw(0.1)),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, mask=MASK)),
    )


def test_a_schedule_counts_updates_from_zero(params, grads_at):
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.1

    optimizer = adamw(schedule)
    state = optimizer.init(params)
    for step in range(3):
        _, state = optimizer.update(grads_at(step), state, params)
    assert seen == [0, 1, 2]
    assert state.count == 3


def test_settings_become_python_floats(params, grads_at):
    settings = {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
    optimizer = adamw(np.float64(0.1), **{k: np.float64(v) for k, v in settings.items()})
    single = pytree.map(lambda leaf: leaf.astype(np.float32), params)
    grads = pytree.map(lambda leaf: leaf.astype(np.float32), grads_at(0))
    updates, state = optimizer.update(grads, optimizer.init(single), single)
    for leaf in pytree.leaves((updates, state.mu, state.nu)):
        assert leaf.dtype == np.float32


def test_numbers_are_parameters_too():
    params = {"s": np.array(1.0, np.float32)}
    optimizer = adamw(0.1)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert updates["s"] == pytest.approx(-0.1, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"b1": 1.0}, {"b2": -0.1}, {"eps": -1.0}, {"weight_decay": np.nan}, {"weight_decay": -1.0}],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must"):
        adamw(0.1, **settings)


def test_a_gradient_of_another_shape_is_refused(params):
    optimizer = adamw(0.1)
    wrong = {**params, "w": params["w"][:1]}
    with pytest.raises(ValueError, match=r"gradient of w must have its shape, \(5, 7\)"):
        optimizer.update(wrong, optimizer.init(params), params)


def test_decay_spares_norms_unless_asked(params):
    zero = pytree.zeros_like(params)
    plain = adamw(0.1, weight_decay=0.5)
    updates, _ = plain.update(zero, plain.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05 * params["w"], rtol=1e-15)
    assert not updates["blocks"][0]["scale"].any()
    everything = adamw(0.1, weight_decay=0.5, mask=None)
    updates, _ = everything.update(zero, everything.init(params), params)
    assert updates["blocks"][0]["scale"].all()


def test_nothing_is_written_to(params, grads_at):
    optimizer = adamw(0.1)
    state = optimizer.init(params)
    grads = grads_at(0)
    before = [leaf.copy() for leaf in pytree.leaves((params, state, grads))]
    optimizer.update(grads, state, params)
    after = pytree.leaves((params, state, grads))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
