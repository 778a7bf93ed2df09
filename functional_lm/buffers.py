"""Arrays in memory that nobody uses any more, where the allocator would give it back.

A training step makes the same few hundred arrays over and over. On macOS, on Windows and with
musl, the memory of a large array goes back to the system when it is freed, and the next such array
costs a page fault for each of its pages. There `runtime.tune` switches on a pool: the functions of
this file then hand out views of buffers that the pool keeps. Without it they are NumPy's own.

Nobody has to give anything back. A view holds its buffer, and so does a view of a view; as long as
anyone holds a result, a residual or a part of one, the reference count of its buffer says so. Each
thread has buffers of its own, which any thread may let go of.

Results are the same to the bit, and lie in the order of their axes.
"""

import itertools
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from .contract import Array
from .speed import runtime

SMALL = 2**16
"""Bytes below which an array is never pooled: allocators keep those themselves."""

SPARE = 2**26
"""Bytes that a thread's pool may hold besides twice what was in use at once."""

LONGEST = 500
"""Buffers of one size that a pool holds: to look at more takes longer than a page fault."""


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array with any content, as ``np.empty`` does."""
    if not runtime.pooled:
        return np.empty(shape, dtype)
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < SMALL:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, _pool.buffer(n_bytes))


def contiguous(x: Array) -> Array:
    """Return x if it lies in the order of its axes, else a copy that does."""
    if not runtime.pooled or x.flags.c_contiguous:
        return np.ascontiguousarray(x)
    copy = empty(x.shape, x.dtype)
    copy[...] = x
    return copy


def matmul(a: Array, b: Array) -> Array:
    """Return ``a @ b``; its leading axes are those of a, or of b if b has more axes."""
    if not runtime.pooled:
        return a @ b
    rows = a.shape[:-1] if a.ndim >= b.ndim else (*b.shape[:-2], a.shape[-2])
    return np.matmul(a, b, out=empty((*rows, b.shape[-1]), a.dtype))


def multiply(a: Array, b: Any) -> Array:
    """Return ``a * b``, in the shape and dtype of a."""
    if not runtime.pooled:
        return a * b
    return np.multiply(a, b, out=empty(a.shape, a.dtype))


def add(a: Array, b: Any) -> Array:
    """Return ``a + b``, in the shape and dtype of a."""
    if not runtime.pooled:
        return a + b
    return np.add(a, b, out=empty(a.shape, a.dtype))


def subtract(a: Array, b: Any) -> Array:
    """Return ``a - b``, in the shape and dtype of a."""
    if not runtime.pooled:
        return a - b
    return np.subtract(a, b, out=empty(a.shape, a.dtype))


class _Pool(threading.local):
    """The buffers of one thread, in a list for each number of bytes, the last asked for last.

    Sizes that never come again, such as those of texts of all lengths, must not stay for ever. The
    pool holds at most twice what was ever in use at once, and `SPARE`. Where it would be more, the
    sizes go that were asked for longest ago; who still has an array of them keeps it.
    """

    def __init__(self) -> None:
        self.lists: dict[int, list[Array]] = {}
        self.most = 0  # bytes in use at once

    def buffer(self, n_bytes: int) -> Array:
        """Return a buffer that nobody holds."""
        buffers = self.lists[n_bytes] = self.lists.pop(n_bytes, [])
        found = next(_unheld(buffers, _BY_THE_POOL), None)
        if found is None:
            found = np.empty(n_bytes, np.uint8)
            buffers.append(found)
            del buffers[:-LONGEST]
            self._forget()
        return found

    def _forget(self) -> None:
        lists = self.lists
        total = sum(n_bytes * len(buffers) for n_bytes, buffers in lists.items())
        free = sum(b.nbytes for buffers in lists.values() for b in _unheld(buffers, _BY_THE_POOL))
        self.most = max(self.most, total - free)
        for n_bytes in list(lists):
            if total <= 2 * self.most + SPARE:
                break
            total -= n_bytes * len(lists.pop(n_bytes))


def _unheld(buffers: list[Array], references: int) -> Iterator[Array]:
    """Yield the buffers that have no more than so many references.

    The loop holds each one while it looks at it, so that nobody else takes it in between, not even
    a function that interrupts this one.
    """
    for buffer in buffers:
        if sys.getrefcount(buffer) <= references:
            yield buffer


_BY_THE_POOL = min(
    3 if sys.version_info < (3, 14) else 2,  # the list, the loop and, before 3.14, the call
    next(n for n in itertools.count() if list(_unheld([np.empty(0)], n))),
)
"""The references to a buffer in that loop if nobody else holds it.

Measured, since a later Python may count fewer; and never more than is known, since a debugger that
looks at the loop holds one too. Too few would find nothing, too many what is still in use.
"""

_pool = _Pool()
