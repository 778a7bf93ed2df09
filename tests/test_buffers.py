import gc
import queue
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from functional_lm import buffers, pytree
from functional_lm.models import transformer
from functional_lm.speed import runtime
from functional_lm.speed.sharding import sharded
from functional_lm.testing import registry
from functional_lm.training import Objective, TrainConfig, init_state, train

F32 = np.dtype(np.float32)


@pytest.fixture
def pool(monkeypatch):
    """Switch on a pool of its own for this test."""
    monkeypatch.setattr(runtime, "pooled", True)
    monkeypatch.setattr(buffers, "_pool", buffers._Pool())


@pytest.fixture
def pool_of_all_sizes(pool, monkeypatch):
    """... that has even the smallest arrays."""
    monkeypatch.setattr(buffers, "SMALL", 1)


def address(array):
    return array.__array_interface__["data"][0]


def scribble(n=20):
    """Take all free buffers of the size that the tests use, and more, and write to them."""
    taken = [buffers.empty((200, 100), F32) for _ in range(n)]
    for array in taken:
        array[...] = -1.0
    return taken


def draw(seed=0):
    """Return an array from the pool and its numbers."""
    numbers = np.random.default_rng(seed).random((200, 100), F32)
    array = buffers.empty((200, 100), F32)
    array[...] = numbers
    return array, numbers


def test_it_is_off_unless_tune_says_so(monkeypatch):
    monkeypatch.setattr(runtime, "pooled", False)
    a = buffers.empty((200, 100), F32)
    assert a.base is None
    assert (a.shape, a.dtype) == ((200, 100), F32)


def test_memory_comes_back_once_nobody_holds_it(pool):
    a = buffers.empty((200, 100), F32)
    before = address(a)
    assert address(buffers.empty((200, 100), F32)) != before
    del a
    b = buffers.empty((50, 200), np.float64)  # as many bytes
    assert address(b) == before
    assert (b.shape, b.dtype) == ((50, 200), np.float64)
    assert b.flags.c_contiguous
    assert b.flags.writeable


def test_small_arrays_are_numpys_own(pool):
    limit = buffers.SMALL // 4
    assert buffers.empty((limit - 1,), F32).base is None
    assert buffers.empty((limit,), F32).base is not None
    for shape in ((), (0,), (3, 0, 5)):
        assert buffers.empty(shape, F32).shape == shape


HOLDERS = {
    "itself": lambda a: a,
    "a part": lambda a: a[3:5, 7:],
    "one entry": lambda a: a[0, :1],
    "a transpose": lambda a: a.T,
    "a view of a view of a view": lambda a: a.reshape(-1)[10:].reshape(2, -1).T[::2],
    "another dtype": lambda a: a.view(np.complex64),
    "its bytes": lambda a: a.view(np.uint8),
    "a memoryview": memoryview,
    "a part of a memoryview": lambda a: memoryview(a)[2:4],
    "an array over a memoryview": lambda a: np.asarray(memoryview(a)),
    "a field": lambda a: a.view([("x", F32), ("y", F32)])["y"],
    "strides": lambda a: np.lib.stride_tricks.sliding_window_view(a, (3, 3)),
    "a broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "a split": lambda a: np.split(a, 2, axis=-1)[1],
    "an iterator": lambda a: a.flat,
    "a subclass": lambda a: a.view(np.recarray),
    "a closure": lambda a: lambda: a,
    "a generator": lambda a: (row for row in a),
    "a cycle": lambda a: (cycle := [a], cycle.append(cycle))[0],
    "a tree": lambda a: {"w": (a[:1], [a])},
}


def numbers_of(held):
    if callable(held):
        held = held()
    if isinstance(held, (dict, list)):
        held = held["w"][1][0] if isinstance(held, dict) else held[0]
    if isinstance(held, np.flatiter):
        return held.copy()
    return np.array(list(held)) if hasattr(held, "send") else np.array(held)


@pytest.mark.parametrize("name", HOLDERS)
def test_whoever_holds_a_part_keeps_it(pool, name):
    array, _ = draw()
    before = address(array)
    expected = numbers_of(HOLDERS[name](array.copy()))
    held = HOLDERS[name](array)
    del array
    taken = scribble()
    assert before not in map(address, taken)
    np.testing.assert_array_equal(numbers_of(held), expected)
    del held, taken
    gc.collect()
    assert before in map(address, scribble(25))


def test_what_is_done_to_an_array_object_does_not_outlive_it(pool):
    array, _ = draw()
    before = address(array)
    array.flags.writeable = False
    del array
    again = buffers.empty((200, 100), F32)
    assert address(again) == before
    again[...] = 1.0


def test_an_exception_holds_the_arrays_of_its_frames(pool):
    kept = []

    def fail():
        array, numbers = draw()
        kept.append((numbers, address(array)))
        raise ValueError("with an array")

    try:
        fail()
    except ValueError as error:
        caught = error
    ((numbers, before),) = kept
    taken = scribble()
    frame = caught.__traceback__.tb_next.tb_frame
    np.testing.assert_array_equal(frame.f_locals["array"], numbers)
    del taken, frame, caught
    gc.collect()
    assert before in map(address, scribble(25))


def test_a_failed_operation_loses_nothing(pool):
    a = buffers.empty((200, 100), F32)
    with pytest.raises(ValueError, match="broadcast"):
        buffers.multiply(a, np.ones(3, F32))
    first = address(buffers.multiply(a, 2.0))
    assert address(buffers.multiply(a, 2.0)) == first


def test_an_interruption_in_the_middle_of_a_search_takes_another_buffer(pool):
    for array in scribble():
        del array
    stolen = []

    def interrupt(frame, event, function):
        if event == "c_return" and function is sys.getrefcount:
            stolen.append(buffers.empty((200, 100), F32))

    for n in range(1, 6):
        sys.setprofile(interrupt)
        try:
            mine = buffers.empty((200, 100), F32)
        finally:
            sys.setprofile(None)
        assert len(stolen) >= n
        assert address(mine) not in map(address, stolen)


def test_a_thread_may_hold_what_another_made(pool):
    made = []
    thread = threading.Thread(target=lambda: made.append(draw()))
    thread.start()
    thread.join()
    gc.collect()
    ((array, numbers),) = made
    taken = scribble()
    assert address(array) not in map(address, taken)
    np.testing.assert_array_equal(array, numbers)


def test_memory_that_another_thread_lets_go_of_comes_back_to_where_it_was_made(pool):
    box = [buffers.empty((200, 100), F32)]
    before = address(box[0])

    def let_go():
        box.clear()
        box.append(buffers.empty((200, 100), F32))  # from a pool of its own

    thread = threading.Thread(target=let_go)
    thread.start()
    thread.join()
    assert address(buffers.empty((200, 100), F32)) == before
    assert address(box[0]) != before


def test_threads_that_pass_arrays_on_never_see_them_change(pool):
    n_threads, turns = 4, 300
    boxes = [queue.SimpleQueue() for _ in range(n_threads)]
    faults = []

    def work(own):
        rng = random.Random(own)
        held = []
        for turn in range(turns):
            mark = own * turns + turn
            array = buffers.multiply(np.ones((rng.choice([130, 150]), 128), F32), mark)
            boxes[rng.randrange(n_threads)].put((mark, array[:, ::2], array.T))
            del array
            while not boxes[own].empty():
                held.append(boxes[own].get())
            rng.shuffle(held)
            while len(held) > 8:
                mark, *views = held.pop()
                faults.extend(mark for view in views if not (view == mark).all())

    workers = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert faults == []


def pooled_bytes():
    return sum(n_bytes * len(kept) for n_bytes, kept in buffers._pool.lists.items())


@pytest.fixture
def little_to_spare(pool, monkeypatch):
    monkeypatch.setattr(buffers, "SPARE", 2**20)
    monkeypatch.setattr(buffers, "_pool", buffers._Pool())


def test_sizes_that_never_come_again_are_dropped(little_to_spare):
    steady = [address(a) for a in scribble(5)]
    for i in range(500):
        buffers.empty((2**16 + i,), np.uint8)
        assert [address(a) for a in scribble(5)] == steady
    assert pooled_bytes() <= 2**20 + 2 * (5 * 80_000 + 2**17)
    assert len(buffers._pool.lists) < 30


def test_what_a_step_needs_stays_though_its_parts_share_no_size(little_to_spare):
    parts = [2**17 + i for i in range(8)], [2**18], [2**18 + 1], [2**19]

    def step():
        return [[address(a) for a in [buffers.empty((n,), np.uint8) for n in p]] for p in parts]

    first = step()
    assert all(step() == first for _ in range(5))
    assert pooled_bytes() > 2**20


def test_what_is_dropped_lives_on_with_its_holder(little_to_spare):
    array, numbers = draw()
    for i in range(100):
        buffers.empty((2**16 + i,), np.uint8)[...] = 1
    assert array.nbytes not in buffers._pool.lists
    np.testing.assert_array_equal(array, numbers)


def test_a_list_has_an_end(pool, monkeypatch):
    monkeypatch.setattr(buffers, "LONGEST", 10)
    held = [draw(seed) for seed in range(30)]
    assert [len(kept) for kept in buffers._pool.lists.values()] == [10]
    assert len({address(array) for array, _ in held}) == 30
    for array, numbers in held:
        np.testing.assert_array_equal(array, numbers)


def test_the_functions_are_those_of_numpy(pool_of_all_sizes):
    rng = np.random.default_rng(0)
    for shape_a, shape_b in [
        ((5, 3), (3, 7)),
        ((5, 3), (2, 3, 7)),
        ((2, 4, 1, 5, 3), (2, 4, 1, 3, 7)),
        ((2, 4, 6, 5, 3), (2, 4, 1, 3, 7)),
    ]:
        a, b = rng.random(shape_a, F32), rng.random(shape_b, F32)
        product = buffers.matmul(a, b)
        np.testing.assert_array_equal(product, a @ b, strict=True)
        assert product.base is not None
    a = rng.random((5, 3), F32)
    for b in (rng.random((5, 3), F32), rng.random((5, 1), F32), rng.random(3, F32), 2.5):
        np.testing.assert_array_equal(buffers.add(a, b), a + b, strict=True)
        np.testing.assert_array_equal(buffers.subtract(a, b), a - b, strict=True)
        np.testing.assert_array_equal(buffers.multiply(a, b), a * b, strict=True)
    assert buffers.contiguous(a) is a
    transposed = buffers.contiguous(a.T)
    np.testing.assert_array_equal(transposed, a.T, strict=True)
    assert transposed.flags.c_contiguous
    assert not np.shares_memory(transposed, a)


def results_of(name):
    """Return the results of a layer at its registered inputs, and their residuals."""
    layer, results = registry.layer_named(name), []
    for case in registry.cases(name):
        y, residuals = layer.forward(case.params, case.x, **case.keywords)
        g = pytree.map(lambda leaf: np.asarray(np.cos(leaf), leaf.dtype), y)
        results.append((y, residuals, layer.vjp(residuals, g)))
    return results


@pytest.mark.parametrize("name", registry.names())
def test_a_layer_gives_the_same_bits_and_never_takes_them_back(name, monkeypatch):
    monkeypatch.setattr(runtime, "pooled", False)
    expected = results_of(name)
    monkeypatch.setattr(runtime, "pooled", True)
    monkeypatch.setattr(buffers, "SMALL", 1)
    monkeypatch.setattr(buffers, "_pool", buffers._Pool())
    held = results_of(name)
    results_of(name)
    for (_, leaf, pooled), (_, _, plain) in zip(
        pytree.zip_with_path(held, held), pytree.zip_with_path(expected, expected), strict=True
    ):
        assert leaf is pooled
        np.testing.assert_array_equal(pooled, plain, strict=True)


def states_of(n_steps, n_shards):
    """Return the state after each step of training a small model, and copies made at once."""
    config = transformer.Config(65, d_model=128, n_layers=2, n_heads=4, d_ff=320, max_seq_len=64)
    objective = Objective(transformer, config)
    x, y = np.random.default_rng(0).integers(0, 65, (2, 6, 64))
    optimizer = TrainConfig().optimizer(n_steps)
    steps = train(
        objective,
        init_state(objective.init((0,)), optimizer),
        optimizer=optimizer,
        batch_at=lambda step: (np.roll(x, step), {"targets": np.roll(y, step)}),
        steps=n_steps,
        value_and_grad=sharded(n_shards),
    )
    return [(step.state, pytree.map(np.array, step.state)) for step in steps]


@pytest.mark.parametrize("n_shards", [1, 2])
def test_training_with_the_pool_gives_the_same_bits(monkeypatch, n_shards):
    monkeypatch.setattr(runtime, "pooled", False)
    plain = states_of(4, n_shards)
    monkeypatch.setattr(runtime, "pooled", True)
    monkeypatch.setattr(buffers, "_pool", buffers._Pool())
    pooled = states_of(4, n_shards)
    assert any(leaf.base is not None for leaf in pytree.leaves(pooled[-1][0].params))
    for (state, copy), (_, expected) in zip(pooled, plain, strict=True):
        for (path, a, b), (_, _, c) in zip(
            pytree.zip_with_path(state, copy), pytree.zip_with_path(state, expected), strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=path, strict=True)
            np.testing.assert_array_equal(a, c, err_msg=path, strict=True)


def test_a_step_finds_all_its_memory_in_the_pool(pool):
    states_of(3, 1)
    made = []
    plain = np.empty

    def empty(shape, dtype=float):
        made.append(shape)
        return plain(shape, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers.np, "empty", empty)
        states_of(3, 1)
    assert [n for n in made if isinstance(n, int) and n >= buffers.SMALL] == []


def test_a_debugger_that_holds_everything_while_it_is_imported_changes_nothing():
    code = (
        "import sys\n"
        "kept = []\n"
        "def trace(frame, event, argument):\n"
        "    if frame.f_code.co_name == '_unheld':\n"
        "        kept.append(dict(frame.f_locals))\n"
        "    return trace\n"
        "sys.settrace(trace)\n"
        "from functional_lm import buffers\n"
        "from functional_lm.speed import runtime\n"
        "sys.settrace(None)\n"
        "assert kept\n"
        "kept.clear()\n"
        "runtime.pooled = True\n"
        "a = buffers.empty((1000, 1000), 'f4')\n"
        "b = buffers.empty((1000, 1000), 'f4')\n"
        "assert a.base is not b.base\n"
        "before = id(a.base)\n"
        "del a\n"
        "assert id(buffers.empty((1000, 1000), 'f4').base) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
