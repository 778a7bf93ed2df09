import numpy as np
import pytest

from functional_lm.layers import time_step
from functional_lm.testing import certify

test_certified = certify("time_step")


def test_steps_start_between_the_shortest_and_the_longest():
    params = time_step.init((0,), n_heads=1000, shortest=0.01, longest=4.0, dtype=np.float64)
    steps, _ = time_step.forward(params, np.zeros((1, 1000)))
    assert 0.01 <= steps.min() < 0.0102
    assert 3.9 < steps.max() < 4.0
    assert np.log(steps).mean() == pytest.approx(np.log(0.01 * 4.0) / 2, abs=0.2)
    assert np.log(steps).std() == pytest.approx(np.log(4.0 / 0.01) / 12**0.5, rel=0.05)


def test_a_longest_step_below_the_shortest_is_refused():
    with pytest.raises(ValueError, match=r"longest must be finite and at least 0\.2"):
        time_step.init((0,), n_heads=3, shortest=0.2, longest=0.1)
