import numpy as np
import optax
import pytest

from functional_lm.optimizers import lion

MASK = {"w": True, "blocks": ({"scale": False},)}


@pytest.mark.parametrize("settings", [{}, {"b1": 0.8, "b2": 0.95, "weight_decay": 0.3}])
def test_equals_optax(assert_equals_optax, settings):
    assert_equals_optax(lion(0.1, **settings), optax.lion(0.1, mask=MASK, **settings))


def test_without_a_mask_everything_decays(assert_equals_optax):
    ours = lion(0.1, weight_decay=0.3, mask=None)
    assert_equals_optax(ours, optax.lion(0.1, weight_decay=0.3))


@pytest.mark.parametrize("settings", [{"b1": 1.0}, {"b2": -0.1}, {"weight_decay": np.nan}])
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must"):
        lion(0.1, **settings)
