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
from typing import Any

import numpy as np

from . import runtime
from .contract import Array

SMALL = 2**16
"""Bytes below which an array is never pooled: allocators keep those themselves."""

SPARE = 2**26
"""Bytes of new buffers after which a thread drops those of sizes that it no longer asks for."""

LONGEST = 500
"""Buffers of one size that a thread keeps: looking at more takes longer than a page fault."""


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
    """The buffers of one thread, in a list for each number of bytes.

    Sizes that never come again, such as those of a long evaluation, must not stay for ever. When
    enough has been made anew, the sizes that were asked for since the last time are kept, and the
    others dropped; who still holds an array of them keeps it. A step that finds all it needs makes
    nothing, and drops nothing.
    """

    def __init__(self) -> None:
        self.recent: dict[int, list[Array]] = {}  # sizes asked for since the last sweep
        self.older: dict[int, list[Array]] = {}  # sizes not asked for since then
        self.made, self.limit = 0, SPARE  # bytes made since the last sweep, and until the next

    def buffer(self, n_bytes: int) -> Array:
        """Return a buffer that nobody holds."""
        buffers = self.recent.get(n_bytes)
        if buffers is None:
            buffers = self.recent[n_bytes] = self.older.pop(n_bytes, [])
        found = _first(buffers, _UNHELD)
        if found is None:
            found = np.empty(n_bytes, np.uint8)
            buffers.append(found)
            del buffers[:-LONGEST]
            self.made += n_bytes
            if self.made > self.limit:
                self._sweep()
        return found

    def _sweep(self) -> None:
        kept = sum(n_bytes * len(buffers) for n_bytes, buffers in self.recent.items())
        self.older, self.recent = self.recent, {}
        self.made, self.limit = 0, max(SPARE, kept // 2)


def _first(buffers: list[Array], references: int) -> Array | None:
    """Return the first buffer with at most so many references.

    The loop holds each one while it looks at it, so that nobody else takes it in between, not even
    a function that interrupts this one.
    """
    for buffer in buffers:
        if sys.getrefcount(buffer) <= references:
            return buffer
    return None


_UNHELD = min(
    3 if sys.version_info < (3, 14) else 2,  # the list, the loop and, before 3.14, the call
    next(n for n in itertools.count() if _first([np.empty(0)], n) is not None),
)
"""The references to a buffer in that loop if nobody else holds it.

Measured, since a later Python may count fewer; and never more than is known, since a debugger that
looks at the loop holds one too. Too few would find nothing, too many what is still in use.
"""

_pool = _Pool()
