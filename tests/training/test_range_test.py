import dataclasses
import math

import numpy as np
import pytest

from functional_lm.compose import serial
from functional_lm.layers import embedding, unembedding
from functional_lm.training import Experiment, TrainConfig
from functional_lm.training.range_test import EXPLOSION, range_test, read_off

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
SETTINGS = TrainConfig(steps=12, batch_size=4, seq_len=16, shards=1)
EXPERIMENT = Experiment.build(TEXT, SETTINGS, sizes={"d_model": 16, "n_heads": 2, "n_layers": 1})


def curve(fall=1.0, noise=0.0):
    """Return 60 rates from 1e-5 to 1, with half of the fall at 1e-3, and the losses."""
    rates = np.logspace(-5, 0, 60)
    losses = 4.0 - fall / (1 + np.exp(-3 * (np.log10(rates) + 3)))
    return rates.tolist(), (losses + noise * np.random.default_rng(0).normal(size=60)).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_what_is_read_off(noise):
    test = read_off(*curve(noise=noise), diverged=True)
    assert test.halfway == pytest.approx(1e-3, rel=0.5)
    assert test.diverged == pytest.approx(1.0, rel=0.4)
    assert test.suggestion == pytest.approx(math.sqrt(test.halfway * test.diverged) / 6.0)
    assert len(test.smoothed) == 60
    assert test.smoothed[30] == pytest.approx(np.mean(test.losses[28:33]))
    # Without a divergence the lower rate decides.
    test = read_off(*curve(noise=noise), diverged=False)
    assert test.diverged is None
    assert test.halfway < test.suggestion < 10 * test.halfway


def test_a_model_is_tested_until_it_diverges():
    test = range_test(EXPERIMENT)
    assert test.rates[0] == pytest.approx(1e-5)
    ratios = np.divide(test.rates[1:], test.rates[:-1])
    np.testing.assert_allclose(ratios, 1e6 ** (1 / 99))
    (step, *_) = EXPERIMENT.run()
    assert test.losses[0] == step.loss == pytest.approx(math.log(29), rel=0.05)
    assert len(test.losses) < 100
    assert max(test.losses[:-10]) < test.losses[0] + 1
    assert 1e-3 < test.suggestion < 1e-1
    assert test.diverged > test.suggestion > test.halfway / 6.0


def test_where_nothing_is_learned_it_says_so():
    with pytest.raises(FloatingPointError, match=r"the loss was 4\.000 first and 3\.9"):
        read_off(*curve(fall=0.05), diverged=False)
    with pytest.raises(FloatingPointError, match="no learning rate learned anything"):
        range_test(EXPERIMENT, lowest=1e-9, highest=1e-7, steps=20)


def test_a_loss_that_is_not_finite_ends_the_test():
    class Fuse:
        init = staticmethod(lambda key: {})
        forward = staticmethod(lambda params, x: (x if np.abs(x).max() < 1 else x * np.nan, None))
        vjp = staticmethod(lambda residuals, g: ({}, g))

    model = serial(embedding=embedding, fuse=Fuse, unembedding=unembedding)
    test = range_test(Experiment.build(TEXT, SETTINGS, model=model))
    assert len(test.losses) < 100
    assert all(map(math.isfinite, test.losses))
    assert test.losses[-1] < test.losses[0] + EXPLOSION
    assert test.diverged == test.rates[-3]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lowest": 0.0}, "lowest must be finite and at least"),
        ({"lowest": 1.0, "highest": 1.5}, "highest must be finite and at least 2"),
        ({"steps": 10}, "steps must be at least 20"),
    ],
)
def test_settings_out_of_range_are_named(settings, says):
    with pytest.raises(ValueError, match=says):
        range_test(EXPERIMENT, **settings)


@pytest.mark.parametrize(("optimizer", "margin"), [("adamw", 6.0), ("muon", 3.3)])
def test_each_optimizer_has_its_margin(optimizer, margin):
    settings = dataclasses.replace(EXPERIMENT.settings, optimizer=optimizer)
    test = range_test(dataclasses.replace(EXPERIMENT, settings=settings))
    middle = math.sqrt(test.halfway * test.diverged)
    assert test.suggestion == pytest.approx(middle / margin)
