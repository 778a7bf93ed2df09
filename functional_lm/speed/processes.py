"""Training in several processes, on one machine or on many, over MPI.

Each process computes the gradient of its share of every batch. In a program that mpiexec starts::

    from mpi4py import MPI

    gradient = distributed(value_and_grad, MPI.COMM_WORLD, microbatches=8)
    train(layer, state, value_and_grad=gradient, ...)

where all processes train from the same state on the same batches. mpi4py is imported here alone,
and only once there is more than this process.
"""

import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import pytree
from ..contract import Array, Differentiable, Scalar, Tree, expect_choice, expect_int
from ..gradient import ValueAndGrad
from .runtime import launched
from .sharding import Parts, TreeSum, examples
from .threads import one_thread

__all__ = ["Reduce", "beside", "distributed", "share", "wait", "world"]

Reduce: TypeAlias = Literal["tree", "fast"]

BUCKET = 2**20
"""Entries that are sent together, at least: while they are added, the next are on their way."""


def world() -> Any:
    """Return the communicator of all processes that mpiexec started, or None without mpiexec.

    Raises:
        ImportError: if mpi4py or the library of MPI is missing.
        ValueError: if mpi4py belongs to another MPI than mpiexec.
    """
    launch = launched()
    if launch is None:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of another mpiexec, which is an error here
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no library of MPI
        raise ImportError(
            f"mpiexec has started {launch.size} processes, which need mpi4py to train one model: "
            f"{str(error).splitlines()[0]}; pip install 'functional-lm[mpi]', or start one process "
            "without mpiexec"
        ) from None
    if MPI.COMM_WORLD.size != launch.size:
        raise ValueError(
            f"mpiexec must be that of mpi4py's MPI: it has started {launch.size} processes, and "
            f"{' '.join(MPI.Get_library_version().split()[:3])} sees {MPI.COMM_WORLD.size}; use "
            "the mpiexec of the environment that has mpi4py"
        )
    return MPI.COMM_WORLD


def beside(comm: Any) -> Any:
    """Return the communicator of those processes of ``comm`` that are on this machine."""
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED)


def distributed(
    value_and_grad: Any,
    comm: Any,
    *,
    microbatches: int,
    n_threads: int = 1,
    split: tuple[str, ...] = ("targets",),
    weight: Callable[[Any, dict[str, Any]], float] = examples,
    reduce: Reduce = "tree",
) -> ValueAndGrad:
    """Return a `value_and_grad` that divides the batch among processes, as `sharded` among threads.

    Every process calls it with the same parameters and the whole batch, computes its share of the
    microbatches, and gets the loss and the gradient of the batch. With "tree" their bits depend on
    the number of microbatches alone, not on that of processes or threads: the gradients of the
    microbatches are added as a `TreeSum`. Each process adds a slice of the gradient, from the
    slices that all send to it, and sends the sum to all.

    Args:
        value_and_grad: of a microbatch; it must take a ``cotangent``.
        comm: the communicator of mpi4py.
        microbatches: the parts of a batch; a smaller batch has fewer. For the same bits as in one
            process, give `sharded` as many.
        n_threads: how many a process computes at once.
        split: as in `sharded`.
        weight: as in `sharded`.
        reduce: "tree", or "fast" to let MPI add in the order that it finds fastest.

    Raises:
        ValueError: for fewer microbatches than processes; from the returned function, for
            parameters of several dtypes, or as in `sharded`.
    """
    expect_int("n_threads", n_threads)
    expect_choice("reduce", reduce, ("tree", "fast"))
    if expect_int("microbatches", microbatches) < comm.size:
        raise ValueError(
            f"microbatches must be at least as many as processes: got {microbatches} and "
            f"{comm.size} processes; raise microbatches, or start fewer processes"
        )

    def distributed_value_and_grad(
        layer: Differentiable, params: Tree, x: Any, **side: Any
    ) -> tuple[Scalar, Tree]:
        parts = Parts(x, side, microbatches, split, weight)
        bounds = share(len(parts.inputs), comm.size)
        shares = [range(a, b) for a, b in itertools.pairwise(bounds)]
        mine, losses = shares[comm.rank], np.zeros(len(parts.inputs))
        sums: TreeSum[list[Array]] = TreeSum(_add_all)
        with one_thread():
            # Who has nothing to do in a small batch needs the structure of the gradient even so.
            for i, loss, grads in parts.computed(
                value_and_grad, layer, params, mine or range(1), n_threads
            ):
                losses[i] = loss
                sums.add(i, _packed(grads))
        sent = losses[mine.start : mine.stop].copy()
        told = comm.Iallgatherv(sent, [losses, [len(one) for one in shares]])
        if not mine:
            sums.nodes = [node._replace(size=0) for node in sums.nodes]
        if reduce == "fast":
            buckets = _reduced_by_mpi(comm, sums, bool(mine))
        else:
            buckets = _reduced(comm, sums, shares)
        wait([told])
        dtype = np.asarray(loss).dtype.type
        return parts.loss([dtype(one) for one in losses]), _unpacked(buckets, grads)

    return distributed_value_and_grad


def share(size: int, parts: int) -> list[int]:
    """Return the bounds of ``parts`` shares of ``size`` things, as even as can be."""
    return [size * i // parts for i in range(parts + 1)]


def wait(requests: Sequence[Any]) -> None:
    """Wait for transfers; after a thousandth of a second, leave the core to others meanwhile."""
    from mpi4py import MPI

    start = time.perf_counter()
    while not MPI.Request.Testall(requests):
        time.sleep(0 if time.perf_counter() - start < 1e-3 else 1e-4)


def _reduced(comm: Any, sums: TreeSum[list[Array]], shares: Sequence[range]) -> list[Array]:
    """Return the sum over all processes, whose nodes are the same whatever their number."""
    nodes = [_nodes(one) for one in shares]
    coming = []
    for i, bucket in enumerate(sums.nodes[0].total):
        bounds = share(len(bucket), comm.size)
        sizes = np.diff(bounds)
        own = [node.total[i] for node in sums.nodes if node.size]
        slices = itertools.pairwise(bounds)
        pieces = [one[a:b] for a, b in slices for one in own]
        sent = own[0] if len(own) == 1 else np.concatenate([bucket[:0], *pieces])
        mine = int(sizes[comm.rank])
        counts = [mine * len(one) for one in nodes]
        received = np.empty(sum(counts), bucket.dtype)
        request = comm.Ialltoallv([sent, sizes * len(own)], [received, counts])
        coming.append((request, sent, received, sizes))
    leaving, buckets = [], []
    for request, _, received, sizes in coming:
        wait([request])
        total: TreeSum[Array] = TreeSum(_add)
        mine = int(sizes[comm.rank])
        for at, (start, size) in enumerate(node for one in nodes for node in one):
            total.add(start, received[at * mine : (at + 1) * mine], size)
        bucket = np.empty(sum(sizes), received.dtype)
        slice_ = total.total()
        leaving.append((comm.Iallgatherv(slice_, [bucket, sizes]), slice_))
        buckets.append(bucket)
    wait([request for request, _ in leaving])
    return buckets


def _reduced_by_mpi(comm: Any, sums: TreeSum[list[Array]], any_own: bool) -> list[Array]:
    own = sums.total() if any_own else [np.zeros_like(one) for one in sums.nodes[0].total]
    buckets = [np.empty_like(one) for one in own]
    wait([comm.Iallreduce(one, all_) for one, all_ in zip(own, buckets, strict=True)])
    return buckets


def _nodes(terms: range) -> list[tuple[int, int]]:
    """Return the start and size of the nodes that terms add up to."""
    sums: TreeSum[None] = TreeSum(lambda a, b: None)
    for i in terms:
        sums.add(i, None)
    return [(node.start, node.size) for node in sums.nodes]


def _add(a: Array, b: Array) -> Array:
    return np.add(a, b, out=a)


def _add_all(a: list[Array], b: list[Array]) -> list[Array]:
    return [_add(one, other) for one, other in zip(a, b, strict=True)]


def _packed(tree: Tree) -> list[Array]:
    """Return the entries of all leaves in their order, in arrays of about `BUCKET`."""
    leaves = pytree.leaves(tree)
    dtypes = {str(leaf.dtype) for leaf in leaves}
    if len(dtypes) > 1:
        raise ValueError(
            f"processes train parameters of one dtype: got {' and '.join(sorted(dtypes))}; "
            "convert the parameters"
        )
    return [np.concatenate([np.ravel(leaf) for leaf in group]) for group in _groups(leaves)]


def _groups(leaves: Iterable[Array]) -> list[list[Array]]:
    groups: list[list[Array]] = [[]]
    for leaf in leaves:
        if sum(one.size for one in groups[-1]) >= BUCKET:
            groups.append([])
        groups[-1].append(leaf)
    return groups


def _unpacked(buckets: Iterable[Array], like: Tree) -> Tree:
    """Undo `_packed`; the leaves are views of the arrays."""
    found = []
    for bucket, group in zip(buckets, _groups(pytree.leaves(like)), strict=True):
        ends = np.cumsum([leaf.size for leaf in group])[:-1]
        parts = np.split(bucket, ends)
        found += [part.reshape(leaf.shape) for part, leaf in zip(parts, group, strict=True)]
    rest = iter(found)
    return pytree.map(lambda leaf: next(rest), like)
