import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import linear_schedule, sgd


@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.9}, {"momentum": 0.7, "nesterov": True}, {"momentum": 0.0}]
)
def test_equals_optax(assert_equals_optax, settings):
    assert_equals_optax(sgd(0.1, **settings), optax.sgd(0.1, **settings))


def test_with_a_schedule_equals_optax(assert_equals_optax):
    schedule = optax.linear_schedule(0.1, 0.01, 30)
    exact = optax.sgd(lambda count: schedule(count.astype("float64")), momentum=0.9)
    assert_equals_optax(sgd(linear_schedule(0.1, 0.01, 30), momentum=0.9), exact)


def test_without_momentum_there_is_no_state(params):
    assert len(pytree.leaves(sgd(0.1).init(params))) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"momentum": 1.5}, "momentum must lie in"), ({"nesterov": True}, "pass momentum=0.9")],
)
def test_bad_settings_are_named(settings, says):
    with pytest.raises(ValueError, match=says):
        sgd(0.1, **settings)
