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
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import pytree
from ..contract import Array, Differentiable, Scalar, Tree, expect_choice, expect_int
from ..gradient import ValueAndGrad, when_ready
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
    slices that all send to it, and sends the sum to all. The gradient of a block that says when it
    is `ready` is sent while that of the blocks below is computed.

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
        shares = [range(a, b) for a, b in itertools.pairwise(share(len(parts.inputs), comm.size))]
        mine, losses = shares[comm.rank], np.zeros(len(parts.inputs))
        exchange = _Exchange(comm, shares, reduce, ownership)

        def gradient(layer: Any, params: Tree, x: Any, *, number: int, **side: Any) -> Any:
            done: set[str] = set()

            def ready(path: str, grads: Tree) -> None:
                done.add(path)
                exchange.add(path, number, pytree.leaves(grads))

            with when_ready(ready):
                loss, grads = value_and_grad(layer, params, x, **side)
            leaves = pytree.leaves(grads)
            for path, numbers in _buckets(grads).items():
                if path not in done:
                    exchange.add(path, number, [leaves[i] for i in numbers])
            return loss, pytree.map(like_without_memory, grads)

        for number, (_, own) in enumerate(parts.inputs):
            own["number"] = number
        with one_thread():
            # Who has nothing to do in a small batch needs the structure of the gradient even so.
            results = [*parts.computed(gradient, layer, params, mine or range(1), n_threads)]
        for i, loss, _ in results:
            losses[i] = loss
        told = comm.Iallgatherv(
            losses[mine.start : mine.stop].copy(), [losses, [*map(len, shares)]]
        )
        _, loss, like = results[-1]
        total = exchange.total(like)
        wait([told])
        dtype = np.asarray(loss).dtype.type
        return parts.loss([dtype(one) for one in losses]), total

    return distributed_value_and_grad


def share(size: int, parts: int) -> list[int]:
    """Return the bounds of ``parts`` shares of ``size`` things, as even as can be."""
    return [size * i // parts for i in range(parts + 1)]


def test(requests: Sequence[Any]) -> bool:
    """Tell whether all transfers are complete, and have them go on."""
    from mpi4py import MPI

    return MPI.Request.Testall(requests)


def wait(requests: Sequence[Any]) -> None:
    """Wait for transfers; after a thousandth of a second, leave the core to others meanwhile."""
    start = time.perf_counter()
    while not test(requests):
        time.sleep(0 if time.perf_counter() - start < 1e-3 else 1e-4)


class _Exchange:
    """The sum of one gradient over all processes, bucket by bucket, while it is computed.

    A bucket is a part of the tree that gets ready at once, such as a block of a model. As soon as
    the last own microbatch has it, it is on its way to the process that adds it.
    """

    def __init__(
        self, comm: Any, shares: Sequence[range], reduce: Reduce, ownership: "Ownership | None"
    ) -> None:
        self._comm, self._reduce, self._ownership = comm, reduce, ownership
        self._mine = shares[comm.rank]
        self._nodes = [_nodes(one) for one in shares]  # of each process
        self._waiting: dict[str, dict[int, Array]] = {}
        self._sums: dict[str, TreeSum[Array]] = {}
        self._coming: dict[str, tuple[Any, ...]] = {}
        self._lock = threading.Lock()  # microbatches come from several threads

    def add(self, path: str, number: int, leaves: Sequence[Array]) -> None:
        """Add a bucket of a microbatch; if it is the last, send the sum."""
        dtypes = sorted({str(leaf.dtype) for leaf in leaves})
        if len(dtypes) > 1:
            raise ValueError(
                f"processes train parameters of one dtype: got {' and '.join(dtypes)}; convert the "
                "parameters"
            )
        flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
        with self._lock:
            waiting = self._waiting.setdefault(path, {})
            waiting[number] = flat
            total = self._sums.setdefault(path, TreeSum(_add))
            follows = self._mine.start + sum(node.size for node in total.nodes)
            while follows in waiting:
                total.add(follows, waiting.pop(follows))
                follows += 1
            if follows >= self._mine.stop:
                self._send(path, flat)

    def _send(self, path: str, like: Array) -> None:
        bounds = None if self._ownership is None else self._ownership.bounds.get(path)
        if self._ownership is not None and (bounds is None or bounds[-1] != like.size):
            raise ValueError(
                f"the gradient must be like what is owned: got {like.size} entries in {path}; make "
                "the ownership of what is trained"
            )
        total = self._sums[path]
        comm = self._comm
        if self._reduce == "fast":
            sent = total.total() if self._mine else np.zeros_like(like)
            received = np.empty_like(like)
            if bounds is None:
                request = comm.Iallreduce(sent, received)
            else:
                sizes = np.diff(bounds)
                received = received[: sizes[comm.rank]]
                request = comm.Ireduce_scatter(sent, received, sizes)
        else:
            bounds = bounds or share(like.size, comm.size)
            sizes, own = np.diff(bounds), [node.total for node in total.nodes if self._mine]
            pieces = [one[a:b] for a, b in itertools.pairwise(bounds) for one in own]
            sent = own[0] if len(own) == 1 else np.concatenate([like[:0], *pieces])
            counts = [sizes[comm.rank] * len(one) for one in self._nodes]
            received = np.empty(sum(counts), like.dtype)
            request = comm.Ialltoallv([sent, sizes * len(own)], [received, counts])
        self._coming[path] = request, received, bounds, sent
        test([one[0] for one in self._coming.values()])  # nothing moves unless MPI is called

    def total(self, like: Tree) -> Tree:
        """Return the sum, or what is owned of it, in a tree like the gradient of a microbatch."""
        slices, bounds_of = {}, {}
        for path, (request, received, bounds, _) in self._coming.items():
            wait([request])
            slices[path], bounds_of[path] = received, bounds
            if self._reduce == "tree":
                total: TreeSum[Array] = TreeSum(_add)
                nodes = [node for one in self._nodes for node in one]
                pieces = np.split(received, len(nodes))
                for (start, size), piece in zip(nodes, pieces, strict=True):
                    total.add(start, piece, size)
                slices[path] = total.total()
        if self._ownership is not None:
            return self._ownership.of_slices(slices)
        if self._reduce == "tree":
            slices = _gathered(self._comm, slices, bounds_of)
        return _unpacked(slices, like)


class Ownership:
    """Which entries of a tree each process owns, for an optimizer that divides its state.

    That is stage 1 of ZeRO (Rajbhandari et al. 2020): each process gets the gradient of what it
    owns, updates that alone, and gets the rest of the new parameters from the others. What one owns
    is a tree of the same structure, with None for a leaf of which it owns nothing; of a part of a
    leaf the entries lie along the first axis. A leaf is divided between blocks of the sum of
    squares, so that the norm has the bits of `global_norm`.

    Attributes:
        bounds: of the shares of the processes in each bucket.
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
        self._buckets = _buckets(tree)
        named = pytree.leaves_with_path(tree)
        self.bounds: dict[str, list[int]] = {}
        self._pieces = [(0, 0)] * len(named)  # of each leaf, where the own entries are
        before = np.zeros(comm.size + 1, int)  # what the processes before each own so far
        for bucket, numbers in self._buckets.items():
            cuts, begins = [0], []
            for path, leaf in (named[i] for i in numbers):
                begins.append(cuts[-1])
                inside = [] if by_leaf(path) else range(BLOCK, leaf.size, BLOCK)
                cuts += [begins[-1] + cut for cut in (*inside, leaf.size)]
            ideal = share(int(before[-1]) + cuts[-1], comm.size) - before
            nearest = [min(cuts, key=lambda cut: abs(cut - i)) for i in ideal]
            self.bounds[bucket] = bounds = np.maximum.accumulate(nearest).tolist()
            before += bounds
            low, high = bounds[comm.rank : comm.rank + 2]
            for i, begin in zip(numbers, begins, strict=True):
                size = named[i][1].size
                self._pieces[i] = min(max(low - begin, 0), size), min(max(high - begin, 0), size)

    def own(self, tree: Tree) -> Tree:
        """Return what this process owns of a tree like the first, as views where it can."""
        pieces = iter(self._pieces)

        def one(leaf: Array) -> Array | None:
            start, stop = next(pieces)
            return None if start == stop else _piece(np.ravel(leaf)[start:stop], leaf)

        return pytree.map(one, tree)

    def joined(self, own: Tree) -> Tree:
        """Return the whole tree of what all own."""
        leaves, everything = iter(pytree.leaves(own)), pytree.leaves(self._like)
        nothing = [np.empty(0, leaf.dtype) for leaf in everything]
        pairs = zip(nothing, self._pieces, strict=True)
        parts = [np.ravel(next(leaves)) if a < b else none for none, (a, b) in pairs]
        slices = {
            bucket: np.concatenate([parts[i] for i in numbers])
            for bucket, numbers in self._buckets.items()
        }
        return _unpacked(_gathered(self._comm, slices, self.bounds), self._like)

    def norm(self, own: Tree) -> float:
        """Return the `global_norm` of the whole tree, with the same bits."""
        leaves, everything = iter(pytree.leaves(own)), pytree.leaves(self._like)
        sums = [np.zeros(-(-leaf.size // BLOCK)) for leaf in everything]
        for blocks, (start, stop) in zip(sums, self._pieces, strict=True):
            if start < stop:
                squares = square_sums(np.ravel(next(leaves)))
                blocks[start // BLOCK :][: len(squares)] = squares
        found = np.concatenate([np.empty(0), *sums])
        wait([self._comm.Iallreduce(found.copy(), found)])  # to each sum all others add zeros
        chunk, ends = NORM_CHUNK // BLOCK, np.cumsum([len(blocks) for blocks in sums])
        total = 0.0
        for blocks in np.split(found, ends[:-1]):
            for start in range(0, len(blocks), chunk):
                total += sum(blocks[start : start + chunk].tolist())
        return math.sqrt(total)

    def of_slices(self, slices: dict[str, Array]) -> Tree:
        """Return what this process owns, from its slice of each bucket of a gradient."""
        everything = pytree.leaves(self._like)
        found: list[Array | None] = [None] * len(everything)
        for bucket, numbers in self._buckets.items():
            at = 0
            for i in numbers:
                start, stop = self._pieces[i]
                if start < stop:
                    found[i] = _piece(slices[bucket][at : at + stop - start], everything[i])
                at += stop - start
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


def _gathered(
    comm: Any, slices: dict[str, Array], bounds_of: dict[str, list[int]]
) -> dict[str, Array]:
    """Return whole buckets from the slices that each process has."""
    buckets, requests = {}, []
    for path, slice_ in slices.items():
        buckets[path] = np.empty(bounds_of[path][-1], slice_.dtype)
        requests.append(comm.Iallgatherv(slice_, [buckets[path], np.diff(bounds_of[path])]))
    wait(requests)
    return buckets


def _buckets(tree: Tree) -> dict[str, list[int]]:
    """Return the numbers of the leaves of each bucket: of each block, and of all the rest."""
    buckets: dict[str, list[int]] = {}
    for i, (path, _) in enumerate(pytree.leaves_with_path(tree)):
        block = re.match(r"[^.]+\.\d+(?=\.)", path)
        buckets.setdefault(block[0] if block else "", []).append(i)
    return buckets


def _unpacked(buckets: dict[str, Array], like: Tree) -> Tree:
    """Return a tree of the entries of buckets, as views of them."""
    leaves = pytree.leaves(like)
    found: dict[int, Array] = {}
    for path, numbers in _buckets(like).items():
        ends = np.cumsum([leaves[i].size for i in numbers])[:-1]
        for i, part in zip(numbers, np.split(buckets[path], ends), strict=True):
            found[i] = part.reshape(leaves[i].shape)
    rest = iter(range(len(leaves)))
    return pytree.map(lambda leaf: found[next(rest)], like)


def _nodes(terms: range) -> list[tuple[int, int]]:
    """Return the start and size of the nodes that terms add up to."""
    sums: TreeSum[None] = TreeSum(lambda a, b: None)
    for i in terms:
        sums.add(i, None)
    return [(node.start, node.size) for node in sums.nodes]


def _add(a: Array, b: Array) -> Array:
    return np.add(a, b, out=a)
