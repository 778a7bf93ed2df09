import numpy as np
import pytest

from functional_lm.speed import entrywise, threads


def both(a, b, factor, total, difference):
    np.add(a, b, out=total)
    total *= factor
    np.subtract(a, b, out=difference)


@pytest.mark.parametrize("small", [1, 10**9])
def test_new_trees_entry_by_entry(monkeypatch, small):
    monkeypatch.setattr(entrywise, "CHUNK", 7)
    monkeypatch.setattr(entrywise, "SMALL", small)
    rng = np.random.default_rng(0)
    a = {"w": rng.standard_normal((5, 7)).T, "s": (np.float32(2.0), np.array(3.0))}
    b = {"w": rng.standard_normal((7, 5)), "s": (np.float32(1.0), np.array(5.0))}
    factors = {"w": 2, "s": (3, 4)}
    total, difference = entrywise.entrywise(both, a, b, factors, outputs=2)
    np.testing.assert_array_equal(total["w"], (a["w"] + b["w"]) * 2)
    np.testing.assert_array_equal(difference["w"], a["w"] - b["w"])
    assert total["s"] == (9.0, 32.0)
    assert total["s"][0].dtype == np.float32
    assert difference["s"][1].shape == ()


def test_one_tree_comes_alone():
    out = entrywise.entrywise(lambda a, out: np.negative(a, out=out), (np.ones(3), np.ones((0, 2))))
    np.testing.assert_array_equal(out[0], -np.ones(3))
    assert out[1].shape == (0, 2)


def test_large_trees_are_shared_out(monkeypatch):
    counts = []
    plain = threads.run
    monkeypatch.setattr(
        entrywise, "run", lambda tasks, n: (counts.append((len(tasks), n)), plain(tasks, n))[1]
    )
    for size in (entrywise.SMALL - 1, entrywise.SMALL):
        x = np.ones(size, np.float32)
        entrywise.entrywise(lambda a, out: np.negative(a, out=out), x)
    assert counts == [(8, 1), (8, None)]


def test_trees_of_other_structure_are_refused():
    with pytest.raises(ValueError, match="trees must have one structure: at b"):
        entrywise.entrywise(
            both, {"b": (np.ones(2),)}, {"b": [np.ones(2)]}, {"b": (1.0,)}, outputs=2
        )


def test_the_norm_is_accumulated_in_float64():
    tree = {"a": np.full((300, 100), 1e-4, np.float32), "b": (np.full(2, 3e19, np.float32),)}
    assert entrywise.global_norm(tree) == pytest.approx(3e19 * 2**0.5, rel=1e-7)
    assert entrywise.global_norm({"a": tree["a"]}) == pytest.approx(1e-4 * 30_000**0.5, rel=1e-7)
    assert entrywise.global_norm({}) == 0.0
