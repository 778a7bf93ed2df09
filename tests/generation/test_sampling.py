import numpy as np
import pytest

from functional_lm.generation import (
    chain,
    min_p,
    repetition_penalty,
    sample,
    temperature,
    top_k,
    top_p,
)
from functional_lm.numerics import softmax

LOGITS = np.array([0.5, 2.0, -1.0, 1.5])
BEFORE = np.array([1, 2, 1])
INF = np.inf


def kept(transform, logits=LOGITS):
    """Return the tokens that a transform leaves, and require that it changes nothing else."""
    out = transform(logits, BEFORE)
    left = np.isfinite(out)
    np.testing.assert_array_equal(out[left], logits[left])
    return set(np.flatnonzero(left))


def test_sampling_follows_the_distribution_and_the_key():
    draws = [sample((0, i), LOGITS) for i in range(4000)]
    share = np.bincount(draws, minlength=4) / 4000
    np.testing.assert_allclose(share, softmax(LOGITS), atol=0.03)
    assert draws == [sample((0, i), LOGITS) for i in range(4000)]
    assert draws != [sample((1, i), LOGITS) for i in range(4000)]


def test_an_excluded_token_is_never_drawn():
    logits = np.array([-INF, 0.0, -INF, 0.0, -INF])
    assert {sample((i,), logits) for i in range(200)} == {1, 3}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_temperature(dtype):
    logits = LOGITS.astype(dtype)
    scaled = temperature(0.5)(logits, BEFORE)
    assert scaled.dtype == dtype
    np.testing.assert_allclose(softmax(scaled), softmax(2 * LOGITS), rtol=1e-5)


@pytest.mark.parametrize("value", [0, 1e-30])
def test_no_temperature_is_greedy(value):
    scaled = temperature(value)(LOGITS, BEFORE)
    assert {sample((i,), scaled) for i in range(50)} == {1}


def test_top_k():
    assert kept(top_k(2)) == {1, 3}
    assert kept(top_k(9)) == {0, 1, 2, 3}
    assert kept(top_k(2), np.ones(4)) == {0, 1}


def test_top_p():
    probs = softmax(LOGITS)  # about 0.12, 0.53, 0.03, 0.32
    assert kept(top_p(1e-9)) == {1}
    assert kept(top_p(probs[1] - 1e-9)) == {1}
    assert kept(top_p(probs[1] + 1e-9)) == {1, 3}
    assert kept(top_p(0.9)) == {1, 3, 0}
    assert kept(top_p(1.0)) == {0, 1, 2, 3}


def test_min_p():
    assert kept(min_p(1.0)) == {1}
    assert kept(min_p(np.exp(-0.5) - 1e-9)) == {1, 3}
    assert kept(min_p(1e-9)) == {0, 1, 2, 3}


def test_repetition_penalty():
    out = repetition_penalty(2.0)(LOGITS, BEFORE)
    np.testing.assert_array_equal(out, [0.5, 1.0, -2.0, 1.5])
    np.testing.assert_array_equal(repetition_penalty(1.0)(LOGITS, BEFORE), LOGITS)
    np.testing.assert_array_equal(LOGITS, [0.5, 2.0, -1.0, 1.5])


def test_chain_applies_in_order():
    first = chain(repetition_penalty(2.0), top_k(1))
    assert np.isfinite(first(LOGITS, BEFORE)).nonzero()[0] == [3]
    second = chain(top_k(1), repetition_penalty(2.0))
    assert np.isfinite(second(LOGITS, BEFORE)).nonzero()[0] == [1]
    np.testing.assert_array_equal(chain()(LOGITS, BEFORE), LOGITS)


def test_transforms_go_on_after_an_exclusion():
    transform = chain(top_k(2), temperature(0.5), top_p(0.99), min_p(0.01), repetition_penalty(1.5))
    out = transform(LOGITS, BEFORE)
    assert np.isfinite(out).sum() == 2
    assert sample((0,), out) in (1, 3)


@pytest.mark.parametrize("logits", [[np.nan, 1.0], [-INF, -INF], [INF, 0.0]])
def test_logits_that_are_no_distribution_are_refused(logits):
    with pytest.raises(ValueError, match="logits must be finite"):
        sample((0,), np.array(logits))


@pytest.mark.parametrize("value", [1e-46, 1e-320])
def test_a_temperature_below_float32_is_greedy(value):
    scaled = temperature(value)(LOGITS.astype(np.float32), BEFORE)
    assert {sample((i,), scaled) for i in range(50)} == {1}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: temperature(-1.0), "temperature must be finite"),
        (lambda: top_k(0), "top_k must be at least 1"),
        (lambda: top_p(0.0), "top_p must be above 0"),
        (lambda: top_p(1.1), "top_p must lie in"),
        (lambda: min_p(-0.1), "min_p must lie in"),
        (lambda: repetition_penalty(0.0), "repetition_penalty must be finite"),
    ],
)
def test_bad_settings_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
