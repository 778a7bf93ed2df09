"""Training in several processes, on one machine or on many, over MPI.

Each process computes the gradient of its share of every batch. In a program that mpiexec starts::

    from mpi4py import MPI

    gradient = distributed(value_and_grad, MPI.COMM_WORLD, microbatches=8)
    train(layer, state, value_and_grad=gradient, ...)

where all processes train from the same state on the same batches. mpi4py is imported here alone,
and only once there is more than this process.
"""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import pytree
from ..contract import Array, Differentiable, Scalar, Tree, expect_choice, expect_int
from ..gradient import ValueAndGrad
from .entrywise import BLOCK, NORM_CHUNK, square_sums
from .runtime import launched
from .sharding import Parts, TreeSum, examples
from .threads import one_thread

__all__ = [
    "Ownership",
    "Reduce",
    "beside",
    "distributed",
    "expect_parts",
    "like_without_memory",
    "share",
    "wait",
    "world",
]

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


def expect_parts(microbatches: int, comm: Any) -> None:
    """Require a microbatch for each process.

    Raises:
        ValueError: for fewer.
    """
    if microbatches < comm.size:
        raise ValueError(
            f"microbatches must be at least as many as processes: got {microbatches} and "
            f"{comm.size} processes; raise microbatches, or start fewer processes"
        )


def distributed(
    value_and_grad: Any,
    comm: Any,
    *,
    microbatches: int,
    n_threads: int = 1,
    split: tuple[str, ...] = ("targets",),
    weight: Callable[[Any, dict[str, Any]], float] = examples,
    reduce: Reduce = "tree",
    ownership: "Ownership | None" = None,
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
        ownership: give each process the gradient of what it owns alone.

    Raises:
        ValueError: for fewer microbatches than processes; from the returned function, for
            parameters of several dtypes, or as in `sharded`.
    """
    expect_int("n_threads", n_threads)
    expect_choice("reduce", reduce, ("tree", "fast"))
    expect_parts(expect_int("microbatches", microbatches), comm)

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
        packed, bounds = sums.nodes[0].total, None if ownership is None else ownership.bounds
        if bounds is not None and [len(one) for one in packed] != [one[-1] for one in bounds]:
            raise ValueError(
                f"the gradient must be like what is owned: got {pytree.count(grads)} entries for "
                f"{sum(one[-1] for one in bounds)}; make the ownership of what is trained"
            )
        if reduce == "fast":
            result = _reduced_by_mpi(comm, sums, bool(mine), bounds)
        else:
            even = bounds or [share(len(one), comm.size) for one in packed]
            result = _reduced(comm, sums, shares, even)
            result = result if bounds else _gathered(comm, result, even)
        wait([told])
        dtype = np.asarray(loss).dtype.type
        total = parts.loss([dtype(one) for one in losses])
        return total, ownership.of_slices(result) if ownership else _unpacked(result, grads)

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


class Ownership:
    """Which entries of a tree each process owns, for an optimizer that divides its state.

    That is stage 1 of ZeRO (Rajbhandari et al. 2020): each process gets the gradient of what it
    owns, updates that alone, and gets the rest of the new parameters from the others. What one owns
    is a tree of the same structure, with None for a leaf of which it owns nothing; of a part of a
    leaf the entries lie along the first axis. A leaf is divided between blocks of the sum of
    squares, so that the norm has the bits of `global_norm`.
    """

    def __init__(self, comm: Any, tree: Tree, by_leaf: Callable[[str], bool]) -> None:
        """Divide a tree as evenly as it goes.

        Args:
            comm: the communicator of the processes.
            tree: arrays of one dtype.
            by_leaf: tells by its path whether a leaf must not be divided.
        """
        self._comm = comm
        self._like = pytree.map(like_without_memory, tree)
        groups = _groups(pytree.leaves(tree))
        paths = iter([path for path, _ in pytree.leaves_with_path(tree)])
        self.bounds: list[list[int]] = []  # of the processes in each bucket
        self._pieces: list[tuple[int, int]] = []  # of each leaf, where the own entries are
        before = np.zeros(comm.size + 1, int)  # what the processes before each own so far
        for group in groups:
            cuts, ends = [0], np.cumsum([leaf.size for leaf in group]).tolist()
            for leaf, end in zip(group, ends, strict=True):
                inside = range(BLOCK, leaf.size, BLOCK)
                cuts += [] if by_leaf(next(paths)) else [end - leaf.size + cut for cut in inside]
                cuts.append(end)
            ideal = share(int(before[-1]) + cuts[-1], comm.size) - before
            nearest = [min(cuts, key=lambda cut: abs(cut - i)) for i in ideal]
            bounds = np.maximum.accumulate(nearest).tolist()
            before += bounds
            self.bounds.append(bounds)
            low, high = bounds[comm.rank : comm.rank + 2]
            for leaf, end in zip(group, ends, strict=True):
                start = end - leaf.size
                begin = min(max(low, start), end)
                self._pieces.append((begin - start, max(begin, min(high, end)) - start))

    def own(self, tree: Tree) -> Tree:
        """Return what this process owns of a tree like the first, as views where it can."""
        pieces = iter(self._pieces)

        def one(leaf: Array) -> Array | None:
            start, stop = next(pieces)
            return None if start == stop else _piece(np.ravel(leaf)[start:stop], leaf)

        return pytree.map(one, tree)

    def joined(self, own: Tree) -> Tree:
        """Return the whole tree of what all own."""
        leaves, pieces, slices = iter(pytree.leaves(own)), iter(self._pieces), []
        for group in _groups(pytree.leaves(self._like)):
            parts = [next(leaves) for _ in group for start, stop in [next(pieces)] if start < stop]
            slices.append(np.concatenate([np.empty(0, group[0].dtype), *map(np.ravel, parts)]))
        return _unpacked(_gathered(self._comm, slices, self.bounds), self._like)

    def norm(self, own: Tree) -> float:
        """Return the `global_norm` of the whole tree, with the same bits."""
        leaves, sums = iter(pytree.leaves(own)), []
        everything = pytree.leaves(self._like)
        for leaf, (start, stop) in zip(everything, self._pieces, strict=True):
            blocks = np.zeros(-(-leaf.size // BLOCK))
            if start < stop:
                squares = square_sums(np.ravel(next(leaves)))
                blocks[start // BLOCK : start // BLOCK + len(squares)] = squares
            sums.append(blocks)
        found = np.concatenate([np.empty(0), *sums])
        wait([self._comm.Iallreduce(found.copy(), found)])  # to each sum all others add zeros
        total, at, chunk = 0.0, 0, NORM_CHUNK // BLOCK
        for blocks in sums:
            for start in range(0, len(blocks), chunk):
                size = min(chunk, len(blocks) - start)
                total += sum(found[at : at + size].tolist())
                at += size
        return math.sqrt(total)

    def of_slices(self, slices: Sequence[Array]) -> Tree:
        """Return what this process owns, from its slice of each bucket of a gradient."""
        pieces, found = iter(self._pieces), []
        for group, slice_ in zip(_groups(pytree.leaves(self._like)), slices, strict=True):
            at = 0
            for leaf in group:
                start, stop = next(pieces)
                size = stop - start
                found.append(_piece(slice_[at : at + size], leaf) if size else None)
                at += size
        rest = iter(found)
        return pytree.map(lambda leaf: next(rest), self._like)


def like_without_memory(leaf: Any) -> Any:
    """Return zeros like a leaf that take no memory; a NumPy scalar as it is."""
    if isinstance(leaf, np.generic):
        return leaf
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _piece(flat: Array, leaf: Array) -> Array:
    """Return entries of a leaf with its axes; if not all are there, along the first one."""
    whole = flat.size == leaf.size
    return flat.reshape(leaf.shape if whole else (-1, *[1] * (leaf.ndim - 1)))


def _reduced(
    comm: Any,
    sums: TreeSum[list[Array]],
    shares: Sequence[range],
    bounds_of: Sequence[Sequence[int]],
) -> list[Array]:
    """Return the own slice of each bucket, added over all processes in the order of a tree."""
    nodes = [_nodes(one) for one in shares]
    coming = []
    for i, bounds in enumerate(bounds_of):
        sizes = np.diff(bounds)
        own = [node.total[i] for node in sums.nodes if node.size]
        pieces = [one[a:b] for a, b in itertools.pairwise(bounds) for one in own]
        dtype = sums.nodes[0].total[i].dtype
        sent = own[0] if len(own) == 1 else np.concatenate([np.empty(0, dtype), *pieces])
        mine = int(sizes[comm.rank])
        counts = [mine * len(one) for one in nodes]
        received = np.empty(sum(counts), dtype)
        request = comm.Ialltoallv([sent, sizes * len(own)], [received, counts])
        coming.append((request, sent, received, mine))
    slices = []
    for request, _, received, mine in coming:
        wait([request])
        total: TreeSum[Array] = TreeSum(_add)
        for at, (start, size) in enumerate(node for one in nodes for node in one):
            total.add(start, received[at * mine : (at + 1) * mine], size)
        slices.append(total.total())
    return slices


def _gathered(
    comm: Any, slices: Sequence[Array], bounds_of: Sequence[Sequence[int]]
) -> list[Array]:
    """Return whole buckets from the slices that each process has."""
    buckets = [np.empty(bounds[-1], s.dtype) for s, bounds in zip(slices, bounds_of, strict=True)]
    triples = zip(slices, buckets, bounds_of, strict=True)
    wait([comm.Iallgatherv(s, [bucket, np.diff(bounds)]) for s, bucket, bounds in triples])
    return buckets


def _reduced_by_mpi(
    comm: Any, sums: TreeSum[list[Array]], any_own: bool, bounds_of: Any
) -> list[Array]:
    """Return the own slices as `_reduced` does, or without bounds whole buckets, added by MPI."""
    own = sums.total() if any_own else [np.zeros_like(one) for one in sums.nodes[0].total]
    if bounds_of is None:
        results = [np.empty_like(one) for one in own]
        wait([comm.Iallreduce(one, all_) for one, all_ in zip(own, results, strict=True)])
        return results
    sizes_of = [np.diff(bounds) for bounds in bounds_of]
    results = [np.empty(s[comm.rank], one.dtype) for one, s in zip(own, sizes_of, strict=True)]
    triples = zip(own, results, sizes_of, strict=True)
    wait([comm.Ireduce_scatter(one, mine, sizes) for one, mine, sizes in triples])
    return results


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
