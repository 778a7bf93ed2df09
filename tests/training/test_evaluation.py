import numpy as np
import pytest

from functional_lm.losses import cross_entropy
from functional_lm.training import evaluate

X = np.random.default_rng(0).standard_normal((7, 5))
Y = np.array([0, 1, 2, 3, 4, 0, 1])


def test_batches_weigh_by_their_size():
    whole, _ = cross_entropy.forward({}, X, targets=Y)
    parts = [(X[part], {"targets": Y[part]}) for part in (slice(0, 2), slice(2, 7))]
    assert evaluate(cross_entropy, {}, parts) == pytest.approx(whole, rel=1e-14)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(cross_entropy, {}, [])
