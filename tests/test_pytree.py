from collections import OrderedDict
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_lm import pytree


class Pair(NamedTuple):
    left: object
    right: object


def trees():
    arrays = st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float32) + n)
    return st.recursive(
        arrays,
        lambda children: st.one_of(
            st.dictionaries(st.sampled_from("abcd"), children, max_size=3),
            st.lists(children, max_size=3),
            st.lists(children, max_size=3).map(tuple),
            st.tuples(children, children).map(lambda pair: Pair(*pair)),
        ),
        max_leaves=10,
    )


@given(trees())
@settings(deadline=None, max_examples=200)
def test_leaves_come_in_the_order_of_jax(tree):
    ours = pytree.leaves(tree)
    theirs = jax.tree.leaves(tree)
    assert len(ours) == len(theirs)
    assert all(a is b for a, b in zip(ours, theirs, strict=True))


@given(trees())
@settings(deadline=None, max_examples=200)
def test_map_keeps_the_structure(tree):
    doubled = pytree.map(lambda a: 2 * a, tree)
    assert pytree.structure(doubled) == pytree.structure(tree)
    chex.assert_trees_all_equal(doubled, jax.tree.map(lambda a: 2 * a, tree))
    chex.assert_trees_all_equal(pytree.add(tree, tree), doubled)


def test_what_is_no_array_is_structure():
    tree = {"n": 3, "name": "half", "x": np.ones(2), "none": None}
    mapped = pytree.map(lambda a: a + 1, tree)
    assert (mapped["n"], mapped["name"], mapped["none"]) == (3, "half", None)
    assert len(pytree.leaves(tree)) == 1
    assert pytree.structure(tree) != pytree.structure({**tree, "n": 4})


def test_paths():
    tree = {"blocks": ({"attention": {"qkv": np.ones(1)}},), "pair": Pair(np.ones(2), 3)}
    assert [p for p, _ in pytree.leaves_with_path(tree)] == ["blocks.0.attention.qkv", "pair.left"]
    assert pytree.map_with_path(lambda path, leaf: path, tree)["pair"].left == "pair.left"


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.ones(1), "c": (np.ones(1), np.ones(1))},
        {"a": np.ones(1), "b": (np.ones(1),)},
        {"a": np.ones(1), "b": [np.ones(1), np.ones(1)]},
        {"a": np.ones(1), "b": Pair(np.ones(1), np.ones(1))},
        {"a": np.ones(1), "b": np.ones(1)},
    ],
)
def test_another_structure_is_named(other):
    tree = {"a": np.ones(1), "b": (np.ones(1), np.ones(1))}
    with pytest.raises(ValueError, match=r"one structure: at (b|the root)"):
        pytree.add(tree, other)


@pytest.mark.parametrize("other", [{"a": np.ones(1)}, {"a": {}}, {"a": 2}])
def test_what_is_no_array_must_be_equal(other):
    with pytest.raises(ValueError, match="one structure: at a one has None, another"):
        pytree.add({"a": None}, other)


@pytest.mark.parametrize("tree", [{1: np.ones(1)}, {"a.b": np.ones(1)}, OrderedDict(a=np.ones(1))])
def test_dicts_are_plain_and_their_keys_make_paths(tree):
    with pytest.raises(TypeError, match=r"plain dicts|strings without dots"):
        pytree.leaves(tree)


def test_partition_and_combine_are_inverse():
    tree = {"blocks": (Pair(np.ones(2), np.ones(2)), [np.zeros(1), None, 3]), "w": np.float32(1)}
    selected, rest = pytree.partition(tree, lambda path: path in ("blocks.0.right", "w"))
    assert [path for path, _ in pytree.leaves_with_path(selected)] == ["blocks.0.right", "w"]
    assert selected["blocks"] == (Pair(None, tree["blocks"][0].right), [None, None, 3])
    assert rest["w"] is None
    combined = pytree.combine(selected, rest)
    assert pytree.structure(combined) == pytree.structure(tree)
    pairs = zip(pytree.leaves(combined), pytree.leaves(tree), strict=True)
    assert all(ours is theirs for ours, theirs in pairs)
    assert pytree.combine(tree, None) is tree


def test_count():
    assert pytree.count({"a": np.ones((2, 3)), "b": (np.ones(5), np.float32(1))}) == 12


def test_buffer_bytes_counts_what_is_kept_alive_once():
    whole, other = np.zeros((4, 5)), np.zeros(3, np.float32)
    tree = {"part": whole[1], "again": whole.T, "other": other}
    assert pytree.buffer_bytes(tree) == 4 * 5 * 8 + 3 * 4
    assert pytree.buffer_bytes(tree, without=[whole[2:]]) == 3 * 4
    assert pytree.buffer_bytes({}) == 0
