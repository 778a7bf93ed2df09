import jax
import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import adam, muon, newton_schulz, partition

RNG = np.random.default_rng(3)
MATRICES = {"w": RNG.standard_normal((5, 7)), "tall": RNG.standard_normal((9, 4))}


def oracle(**settings):
    """Muon for "w", Adam for the rest."""
    return optax.contrib.muon(0.1, adam_learning_rate=0.01, **settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"beta": 0.8, "eps": 1e-3, "weight_decay": 0.3}, {"nesterov": False}],
)
def test_equals_optax(assert_equals_optax, settings):
    ours = partition(
        {"muon": muon(0.1, **settings), "adam": adam(0.01, eps=settings.get("eps", 1e-8))},
        lambda path: "muon" if path == "w" else "adam",
    )
    theirs = optax.partition(
        {"muon": optax.contrib.muon(0.1, **settings), "adam": optax.adam(0.01, eps=settings.get("eps", 1e-8))},
        {"w": "muon", "blocks": ({"scale": "adam"},)},
    )
    assert_equals_optax(ours, theirs)
