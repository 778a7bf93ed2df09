import tracemalloc

import numpy as np
import pytest

from functional_lm.heads import CAUSAL, QKV
from functional_lm.layers import flash_attention
from functional_lm.speed import threads
from functional_lm.testing import certify

test_certified = certify("flash_attention")


def peak(T):
    """Return the bytes that forward and vjp need at most at once, apart from their arguments."""
    x = QKV(*np.random.default_rng(0).standard_normal((3, 1, T, 2, 8), np.float32))
    g = np.ones_like(x.q)
    tracemalloc.start()
    try:
        _, residuals = flash_attention.forward({}, x, visibility=CAUSAL)
        flash_attention.vjp(residuals, g)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_text_and_not_with_its_square(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 1)  # a peak of two threads depends on their turns
    short, long = peak(1024), peak(2048)
    assert long < 2.2 * short
    assert long < 2048**2  # a quarter of what the scores of one head would take


@pytest.mark.parametrize(
    ("tiles", "error", "says"),
    [
        ({"block_q": 0}, ValueError, "block_q must be at least 1: got 0"),
        ({"block_k": 2.5}, TypeError, "block_k must be an integer"),
    ],
)
def test_bad_tiles_are_named(tiles, error, says):
    x = QKV(*np.ones((3, 1, 2, 1, 1)))
    with pytest.raises(error, match=says):
        flash_attention.forward({}, x, **tiles)
