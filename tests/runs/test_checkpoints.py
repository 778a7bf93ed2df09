import chex
import numpy as np
import pytest

from functional_lm.files import FileFormatError
from functional_lm.runs.checkpoint import latest_state, save_state
from functional_lm.training import TrainState

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
    found, metadata = latest_state(tmp_path, state(0))
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
    assert latest_state(tmp_path, state(0), said.append).state.step == 5
    assert len(said) == 1
    assert "step-00000010.safetensors is damaged" in said[0]
    assert present(tmp_path) == [
        "step-00000005.safetensors",
        "step-00000010.safetensors.damaged",
    ]
    save(tmp_path, 10)
    assert latest_state(tmp_path, state(0)).state.step == 10


def test_no_checkpoint_that_can_be_read(tmp_path):
    with pytest.raises(FileFormatError, match="has no checkpoint that can be read"):
        latest_state(tmp_path, state(0))


def test_a_checkpoint_of_another_model_is_no_damage(tmp_path):
    save(tmp_path, 5)
    other = TrainState(0, {"v": np.ones(3)}, ())
    with pytest.raises(FileFormatError, match="must hold another tree"):
        latest_state(tmp_path, other)
    assert present(tmp_path) == ["step-00000005.safetensors"]
