import numpy as np
import pytest

from functional_lm.layers import swiglu
from functional_lm.testing import certify

test_certified = certify("swiglu")


def test_named_slices_are_views():
    params = swiglu.init((0,), d_model=3, d_ff=5)
    slices = swiglu.named_slices(params)
    assert {name: part.shape for name, part in slices.items()} == {
        "gate": (3, 5),
        "up": (3, 5),
        "down": (5, 3),
    }
    assert all(np.shares_memory(slices[name], params["gate_up"]) for name in ("gate", "up"))


def test_init_has_the_variance_of_each_slice():
    params = swiglu.init((0,), d_model=300, d_ff=500, output_scale=0.5)
    std = (2 / 800) ** 0.5
    slices = swiglu.named_slices(params)
    assert slices["gate"].std() == pytest.approx(std, rel=0.01)
    assert slices["up"].std() == pytest.approx(std, rel=0.01)
    assert slices["down"].std() == pytest.approx(std / 2, rel=0.01)
    assert (slices["gate"] != slices["up"]).any()
    assert (slices["gate"].ravel() != 2 * slices["down"].ravel()).any()
