"""Memory for decoding: arrays side by side, each at the start of a cache line.

Vector units read a line at a time. NumPy's own arrays begin anywhere in one, and a matrix that
does takes a tenth longer to multiply with.
"""

import math

import numpy as np

from ..contract import Array

LINE = 64
"""Bytes of a cache line."""


def aligned(shapes: list[tuple[int, ...]], dtype: np.dtype) -> list[Array]:
    """Return arrays of zeros, all in one piece of memory.

    >>> [array.shape for array in aligned([(2, 3), (5,)], np.dtype(np.float32))]
    [(2, 3), (5,)]
    """
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    starts = np.cumsum([0, *(-(-size // LINE) * LINE for size in sizes)])
    memory = np.zeros(starts[-1] + LINE, np.uint8)
    memory = memory[-memory.ctypes.data % LINE :]
    return [
        memory[start : start + size].view(dtype).reshape(shape)
        for start, size, shape in zip(starts[:-1], sizes, shapes, strict=True)
    ]


def aligned_copies(arrays: list[Array]) -> list[Array]:
    """Return copies of arrays of one dtype, all in one piece of memory."""
    copies = aligned([array.shape for array in arrays], arrays[0].dtype)
    for copy, array in zip(copies, arrays, strict=True):
        copy[...] = array
    return copies
