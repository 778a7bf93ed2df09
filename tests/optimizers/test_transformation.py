import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.optimizers import (
    GradientTransformation,
    apply_updates,
    chain,
    clip_by_global_norm,
    partition,
    sgd,
)

DOUBLE = GradientTransformation(
    lambda params: 0,
    lambda grads, state, params, norm=None: (pytree.map(lambda g: 2 * g, grads), state + 1),
)


def test_chain_applies_in_order():
    grads = {"a": np.array([3.0, 4.0])}
    last = chain(clip_by_global_norm(1.0), DOUBLE)
    updates, state = last.update(grads, last.init(grads), grads)
    np.testing.assert_allclose(updates["a"], [1.2, 1.6])
    assert state == ((), 1)
    first = chain(DOUBLE, clip_by_global_norm(1.0))
    updates, _ = first.update(grads, first.init(grads), grads)
    np.testing.assert_allclose(updates["a"], [0.6, 0.8])


def test_apply_updates_adds():
    params = {"a": np.ones(2, np.float32)}
    new = apply_updates(params, {"a": np.full(2, 0.5, np.float32)})
    np.testing.assert_array_equal(new["a"], [1.5, 1.5])
    assert new["a"].dtype == np.float32
    np.testing.assert_array_equal(params["a"], [1, 1])
    assert apply_updates(params, {"a": np.ones(2)})["a"].dtype == np.float32
    with pytest.raises(ValueError, match="one shape"):
        apply_updates(params, {"a": np.ones((2, 2), np.float32)})


def test_partition_gives_each_leaf_to_one():
    params = {"a": np.ones(2), "b": (np.ones(3), None)}
    both = partition(
        {"double": DOUBLE, "sgd": sgd(0.1)}, lambda path: {"a": "double"}.get(path, "sgd")
    )
    updates, state = both.update(params, both.init(params), params)
    np.testing.assert_array_equal(updates["a"], [2, 2])
    np.testing.assert_allclose(updates["b"][0], -0.1 * np.ones(3))
    assert updates["b"][1] is None
    assert (state["double"], state["sgd"].count) == (1, 1)
    with pytest.raises(ValueError, match=r"label must name .*: got 'sgd' for b\.0; pass one of a"):
        partition({"a": DOUBLE}, {"a": "a", "b.0": "sgd"}.get).init(params)
