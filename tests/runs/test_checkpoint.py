import json
from typing import NamedTuple

import chex
import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.files import FileFormatError
from functional_lm.optimizers import adamw, chain, clip_by_global_norm
from functional_lm.runs import load_checkpoint, save_checkpoint
from functional_lm.runs.checkpoint import latest_state, save_state
from functional_lm.training import TrainState

DRAW = np.random.default_rng(0)


class Pair(NamedTuple):
    first: object
    second: object


TREE = {
    "weight": DRAW.standard_normal((3, 5)).astype(np.float32),
    "blocks": ({"scale": np.ones(2)}, {"scale": np.zeros((0, 4)), "nothing": {}}),
    "list": [np.int64(7), np.array([True, False])],
    "static": [None, 3, 0.5, "text", True, ()],
}


def test_a_tree_comes_back(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TREE, metadata={"step": 3, "name": "é"})
    tree, metadata = load_checkpoint(path, like=TREE)
    assert metadata == {"step": 3, "name": "é"}
    chex.assert_trees_all_equal_comparator(
        lambda a, b: type(a) is type(b) and np.array_equal(a, b) and a.dtype == b.dtype,
        lambda a, b: f"{a} is not {b}",
        pytree.leaves(tree),
        pytree.leaves(TREE),
    )
    assert pytree.structure(tree) == pytree.structure(TREE)


def test_without_a_pattern_it_comes_back_as_plain_containers(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"pair": Pair(np.ones(2), (np.zeros(1), None)), "count": np.int64(2)})
    tree, metadata = load_checkpoint(path)
    assert metadata == {}
    assert pytree.structure(tree) == pytree.structure(
        {"pair": {"first": np.ones(2), "second": (np.zeros(1), None)}, "count": np.ones(())}
    )
    assert tree["count"].shape == ()


def test_the_state_of_an_optimizer_comes_back(tmp_path):
    params = {"w": np.ones((2, 3), np.float32)}
    optimizer = chain(clip_by_global_norm(1.0), adamw(1e-3))
    _, state = optimizer.update({"w": params["w"] * 0.1}, optimizer.init(params), params)
    save_checkpoint(tmp_path / "c", state)
    loaded, _ = load_checkpoint(tmp_path / "c", like=optimizer.init(params))
    assert type(loaded[1]) is type(state[1])
    chex.assert_trees_all_equal(loaded, state)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10.0)[::-2],
        np.arange(4, dtype=">f4"),
        np.float32(2.5),
    ],
    ids=["columns first", "backwards", "big-endian", "a number"],
)
def test_any_layout_keeps_its_values(tmp_path, array):
    save_checkpoint(tmp_path / "c", {"x": array})
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "c").tree["x"], array)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"a": {"f": print}}, "got builtin_function_or_method at a.f"),
        ({"a": np.array(["text"])}, "a has <U4"),
        ({"a": np.array([None])}, "a has object"),
        ({"a": np.ones(2, complex)}, "a has complex128"),
        ({"a.b": np.ones(2)}, "strings without dots"),
    ],
)
def test_what_no_file_can_hold_is_refused_and_nothing_written(tmp_path, tree, says):
    with pytest.raises(TypeError, match=says):
        save_checkpoint(tmp_path / "c", tree)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("like", "says"),
    [
        ({"w": np.ones((3, 2), np.float32)}, r"at w float32 \(3, 2\), got float32 \(2, 3\)"),
        ({"w": np.ones((2, 3))}, r"at w float64"),
        ({"v": np.ones((2, 3), np.float32)}, "at the root v, got w"),
        ({"w": (np.ones(2),)}, "at w tuple, got an array"),
        (np.ones(2), "at the root an array, got dict"),
    ],
)
def test_another_tree_is_refused(tmp_path, like, says):
    save_checkpoint(tmp_path / "c", {"w": np.ones((2, 3), np.float32)})
    with pytest.raises(FileFormatError, match=rf"c must hold another tree: {says}"):
        load_checkpoint(tmp_path / "c", like=like)


def test_another_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.ones(2)}, tmp_path / "c")
    with pytest.raises(FileFormatError, match="has no checksums"):
        load_checkpoint(tmp_path / "c")


SMALL = {"w": DRAW.standard_normal((6, 29)).astype(np.float32), "t": (np.int64(5),)}


def outcome(path):
    """Return what a file is loaded as, or None if it is refused."""
    try:
        return load_checkpoint(path, like=SMALL)
    except FileFormatError:
        return None


def test_no_bit_can_flip_unnoticed(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, SMALL, metadata={"step": 5})
    data = path.read_bytes()
    refused = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.unlink()  # to overwrite a file makes some systems wait for the disk
        path.write_bytes(flipped)
        found = outcome(path)
        refused += found is None
        if found is not None:  # a value proven unharmed, such as a space that became a tab
            chex.assert_trees_all_equal(found.tree, SMALL)
            assert found.metadata == {"step": 5}
    assert 8 * len(data) > 10_000
    assert refused > 0.99 * 8 * len(data)


def test_no_length_is_enough_but_the_whole(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, SMALL)
    data = path.read_bytes()
    for length in range(len(data)):
        path.unlink()
        path.write_bytes(data[:length])
        assert outcome(path) is None
    path.write_bytes(data + b"\0")
    assert outcome(path) is None


def test_metadata_must_be_json(tmp_path):
    for metadata in ({"x": float("nan")}, {"x": np.ones(2)}):
        with pytest.raises((TypeError, ValueError)):
            save_checkpoint(tmp_path / "c", SMALL, metadata=metadata)
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == "[]"


# The checkpoints of a run.

META = {"best_step": None, "best_loss": None}


def state(step):
    return TrainState(step, {"w": np.full(3, step, np.float32)}, (np.int64(step),), 1, step)


def save(folder, *steps, best=None):
    for step in steps:
        save_state(folder, state(step), metadata=META | {"of": step}, best_step=best)


def present(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_comes_back(tmp_path):
    save(tmp_path, 0, 5, 10)
    found, metadata = latest_state(tmp_path, lambda: state(0))
    assert found[0] == 10
    assert found[3:] == (1, 10)
    assert metadata["of"] == 10
    chex.assert_trees_all_equal(found, state(10))


def test_the_last_two_and_the_best_are_kept(tmp_path):
    save(tmp_path, 0, 5)
    save(tmp_path, 10, 100_000_000, best=5)
    assert present(tmp_path) == [
        "step-00000005.safetensors",
        "step-00000010.safetensors",
        "step-100000000.safetensors",
    ]
    save(tmp_path, 100_000_001, best=100_000_000)
    assert present(tmp_path) == ["step-100000000.safetensors", "step-100000001.safetensors"]


def test_a_damaged_newest_gives_way_to_the_one_before_loudly(tmp_path):
    save(tmp_path, 5, 10)
    path = tmp_path / "checkpoints" / "step-00000010.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    said = []
    assert latest_state(tmp_path, lambda: state(0), said.append)[0].step == 5
    assert len(said) == 1
    assert "step-00000010.safetensors is damaged" in said[0]
    assert present(tmp_path) == [
        "step-00000005.safetensors",
        "step-00000010.safetensors.damaged",
    ]
    save(tmp_path, 10)
    assert latest_state(tmp_path, lambda: state(0))[0].step == 10


def test_no_checkpoint_that_can_be_read(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "checkpoints" / "step-00000005.safetensors").write_bytes(b"")
    with pytest.raises(FileFormatError, match="has no checkpoint that can be read"):
        latest_state(tmp_path, lambda: state(0))


def test_a_checkpoint_of_another_model_is_no_damage(tmp_path):
    save(tmp_path, 5)
    other = TrainState(0, {"v": np.ones(3)}, ())
    with pytest.raises(FileFormatError, match="must hold another tree"):
        latest_state(tmp_path, lambda: other)
    assert present(tmp_path) == ["step-00000005.safetensors"]
