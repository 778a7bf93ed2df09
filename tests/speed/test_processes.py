import sys

import numpy as np
import pytest

from functional_lm.speed.processes import distributed, share, world

COMPARE = """
import types
import numpy as np
from mpi4py import MPI
from functional_lm import pytree, value_and_grad
from functional_lm.compose import bind
from functional_lm.layers import dropout
from functional_lm.models import language_model
from functional_lm.models.llama import Config, architecture
from functional_lm.speed import entrywise, processes
from functional_lm.speed.processes import Ownership, distributed
from functional_lm.speed.sharding import kept_targets, sharded
from functional_lm.testing.inputs import same_bits

comm = MPI.COMM_WORLD
for module in (processes, entrywise):  # so that leaves are divided
    module.BLOCK, module.NORM_CHUNK = 64, 256
sizes = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "n_layers": 2, "d_ff": 7}
model = architecture(Config(13, max_seq_len=5, **sizes))
model = model._replace(dropout=bind(dropout, rate=0.3))
params = language_model.init((0,), model=model)
x, targets = np.random.default_rng(0).integers(0, 13, (2, 7, 5))
targets[:3, 1:] = -100
side = {"targets": targets, "model": model, "key": (3,)}
for microbatches in (3, 4, 5, 20):
    kwargs = {"microbatches": microbatches, "weight": kept_targets}
    expected = sharded(2, **kwargs)(language_model, params, x, **side)
    ours = distributed(value_and_grad, comm, n_threads=2, **kwargs)
    for _ in range(2):
        assert same_bits(ours(language_model, params, x, **side), expected), microbatches
    fast = distributed(value_and_grad, comm, reduce="fast", **kwargs)
    found = fast(language_model, params, x, **side)
    assert abs(found[0] - expected[0]) < 1e-5
    for path, a, b in pytree.zip_with_path(found[1], expected[1]):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6, err_msg=path)

def by_leaf(path):
    return "mlp" in path


ownership = Ownership(comm, params, by_leaf)
own = ownership.own(params)
assert same_bits(ownership.joined(own), params)
assert ownership.norm(own) == entrywise.global_norm(params)
shapes = dict(pytree.leaves_with_path(params))
for path, leaf in pytree.leaves_with_path(own):
    assert leaf.ndim == shapes[path].ndim
    assert leaf.shape == shapes[path].shape or not by_leaf(path)
assert abs(pytree.count(own) - pytree.count(params) / comm.size) < 400
for reduce in ("tree", "fast"):
    ours = distributed(value_and_grad, comm, reduce=reduce, ownership=ownership, **kwargs)
    loss, grads = ours(language_model, params, x, **side)
    assert pytree.structure(grads) == pytree.structure(own)
    found = ownership.joined(grads)
    if reduce == "tree":
        assert same_bits((loss, found), expected)
    for path, a, b in pytree.zip_with_path(found, expected[1]):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6, err_msg=path)
other = Ownership(comm, {"a": np.zeros(3, np.float32)}, by_leaf)
try:
    distributed(value_and_grad, comm, ownership=other, **kwargs)(language_model, params, x, **side)
except ValueError as error:
    assert "must be like what is owned: got" in str(error)
else:
    raise AssertionError

small = {name: side[name] for name in ("model", "key")} | {"targets": targets[:2]}
expected = sharded(1, **kwargs)(language_model, params, x[:2], **small)  # not a part for each
for reduce in ("tree", "fast"):
    ours = distributed(value_and_grad, comm, reduce=reduce, **kwargs)
    assert same_bits(ours(language_model, params, x[:2], **small), expected), reduce

mixed = types.SimpleNamespace(
    forward=lambda params, x: (x.mean(), x),
    vjp=lambda x, g: ({"a": np.ones(2), "b": np.ones(2, np.float32)}, None),
)
try:
    distributed(value_and_grad, comm, microbatches=3)(mixed, {}, x[:, 0] * 1.0)
except ValueError as error:
    assert "of one dtype: got float32 and float64" in str(error)
else:
    raise AssertionError
print("well", flush=True)
"""


def test_the_bits_do_not_depend_on_the_number_of_processes(mpiexec):
    done = mpiexec(3, "-c", COMPARE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("well") == 3


def test_processes_without_mpi_do_not_train_alone(monkeypatch):
    assert world() is None
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"started 4 processes, which need mpi4py .* pip install"):
        world()


class Comm:
    size = 4


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="at least as many as processes: got 3 and 4 processes"):
        distributed(None, Comm(), microbatches=3)
    with pytest.raises(ValueError, match="reduce must be 'tree' or 'fast': got 'slow'"):
        distributed(None, Comm(), microbatches=4, reduce="slow")


def test_shares_are_even():
    for size in range(9):
        assert set(np.diff(share(size, 4))) <= {size // 4, -(-size // 4)}
        assert share(size, 4)[0] == 0
        assert share(size, 4)[-1] == size
