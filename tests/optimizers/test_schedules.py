import jax
import numpy as np
import optax
import pytest

from functional_lm.optimizers import (
    constant_schedule,
    linear_schedule,
    warmup_cosine_decay_schedule,
    warmup_inverse_sqrt_schedule,
    warmup_stable_decay_schedule,
)


def test_no_step_is_wasted_and_the_peak_is_reached():
    schedule = warmup_cosine_decay_schedule(1.0, 4, 10, 0.1)
    np.testing.assert_allclose([schedule(s) for s in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule(10) == pytest.approx(0.1)
    assert schedule(1000) == pytest.approx(0.1)
    only_warmup = warmup_cosine_decay_schedule(1.0, 10, 10, 0.1)
    assert [only_warmup(9), only_warmup(10), only_warmup(100)] == [1.0, 0.1, 0.1]


def test_the_decay_equals_optax():
    ours = warmup_cosine_decay_schedule(0.3, 5, 50, 0.02)
    with jax.enable_x64(True):
        theirs = optax.warmup_cosine_decay_schedule(0.0, 0.3, 5, 50, 0.02)
        for step in range(5, 60):
            assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-12)
        for step in range(4):  # one step ahead of optax, which starts at zero
            assert ours(step) == pytest.approx(float(theirs(step + 1)), rel=1e-12)


@pytest.mark.parametrize("arguments", [(0.3, 0.01, 40), (0.0, 0.5, 7, 20), (0.1, 0.1, 1)])
def test_linear_equals_optax(arguments):
    ours = linear_schedule(*arguments)
    with jax.enable_x64(True):
        theirs = optax.linear_schedule(*arguments)
        for step in range(50):
            assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-12)


def test_stable_then_linear_equals_optax():
    ours = warmup_stable_decay_schedule(0.3, 5, 20, 50, 0.02)
    with jax.enable_x64(True):
        theirs = optax.join_schedules(
            [
                optax.linear_schedule(0.0, 0.3, 5),
                optax.constant_schedule(0.3),
                optax.linear_schedule(0.3, 0.02, 30),
            ],
            [5, 20],
        )
        for step in range(60):  # the warm-up is one step ahead of optax, which starts at zero
            expected = float(theirs(step + (step < 5)))
            assert ours(step) == pytest.approx(expected, rel=1e-12)


def test_linear_to_zero_and_constant_are_stable_schedules():
    linear = warmup_stable_decay_schedule(1.0, 2, 2, 10)
    np.testing.assert_allclose([linear(s) for s in (0, 1, 2, 6, 10, 99)], [0.5, 1, 1, 0.5, 0, 0])
    constant = warmup_stable_decay_schedule(1.0, 0, 10, 10, 1.0)
    assert {constant(s) for s in (0, 5, 10, 99)} == {1.0}


def test_the_inverse_square_root_is_that_of_the_transformer():
    d_model, w = 16, 4
    schedule = warmup_inverse_sqrt_schedule((d_model * w) ** -0.5, w)
    for n in range(1, 40):
        expected = d_model**-0.5 * min(n**-0.5, n * w**-1.5)
        assert schedule(n - 1) == pytest.approx(expected, rel=1e-12)
    assert warmup_inverse_sqrt_schedule(0.2, 0)(3) == pytest.approx(0.1)


def test_rates_are_python_floats():
    schedule = warmup_cosine_decay_schedule(np.float64(0.3), 5, 50)
    assert all(type(schedule(np.int64(step))) is float for step in (0, 7))
    assert constant_schedule(0.1)(7) == 0.1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0.1, 1, 11, 10), "decay_begin must be at most decay_steps: got 11 and 10"),
        ((0.1, 11, 10), "warmup_steps must be at most decay_steps: got 11 and 10"),
        ((0.1, -1, 10), "warmup_steps must be at least 0"),
        ((np.nan, 1, 10), "peak_value"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    make = warmup_cosine_decay_schedule if len(arguments) == 3 else warmup_stable_decay_schedule
    with pytest.raises(ValueError, match=says):
        make(*arguments)
