"""Formulas that several layers share, each with its derivative.

They take plain arrays, keep the dtype, and never write to an argument.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .contract import Array


def rows(x: Array) -> Array:
    """Return ``x`` as a matrix ``(N, D)``: all leading axes are one axis of rows."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def row_dot(a: Array, b: Array) -> Array:
    """Return Σᵢ aᵢ·bᵢ over the last axis, kept as an axis of size 1.

    On contiguous rows the sum is blocked; on strided ones it would be naive, and less accurate.
    """
    return np.vecdot(np.ascontiguousarray(a), np.ascontiguousarray(b))[..., None]


def sum_rows(x: Array) -> Array:
    """Return the sum of the rows of a matrix (N, D), shape (D,).

    Summed in √N blocks of √N rows, so that rounding errors grow with N^¼ and not, as in
    ``x.sum(axis=0)``, with √N; each block is one product with a vector of ones.

    Derivative: every row gets g.
    """
    block = max(math.isqrt(len(x)), 1)
    whole = len(x) // block * block
    blocks = x[:whole].reshape(-1, block, x.shape[1])
    total = (np.ones(block, x.dtype) @ blocks).sum(axis=0)
    return total if whole == len(x) else total + x[whole:].sum(axis=0)


def sigmoid(x: Array) -> Array:
    """Return σ(x) = 1/(1 + e⁻ˣ), accurate to a few units in the last place for every x.

    Far below zero e⁻ˣ is infinite, and one over that is zero, as it should be.

    Derivative: σ' = σ·(1 − σ).
    """
    sigma = np.negative(x, out=np.empty(x.shape, x.dtype))
    with np.errstate(over="ignore"):
        np.exp(sigma, out=sigma)
    sigma += 1.0
    return np.divide(1.0, sigma, out=sigma)


def softmax(x: Array) -> Array:
    """Return the softmax of each row: exp(x − max x) / Σ exp(x − max x)."""
    x = np.ascontiguousarray(x)  # the sum of a strided row would be naive, and less accurate
    probs = x - x.max(axis=-1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs


def softmax_vjp(probs: Array, g: Array) -> Array:
    """Return the cotangent of the rows that `softmax` mapped to ``probs``.

    ∂pᵢ/∂xⱼ = pᵢ·(δᵢⱼ − pⱼ)  ⇒  d_x = p·(g − Σⱼ gⱼ·pⱼ)
    """
    return probs * (g - row_dot(g, probs))


_ONE_HOT_LIMIT = 256  # up to here a matrix product beats sorting


def segment_sum(values: Array, ids: Array, n_segments: int) -> Array:
    """Sum the rows that share an id: ``out[i] = Σ values[n] over all n with ids[n] = i``.

    This is the derivative of gathering, ``values = table[ids]``: every row that used an entry
    gives its cotangent to it.

    Args:
        values: ``(N, D)``.
        ids: ``(N,)`` integers in ``[0, n_segments)``.
        n_segments: number of rows of the result.

    Returns:
        ``(n_segments, D)`` in the dtype of ``values``; rows without an id are zero. Where there
        are few segments, a value that is not finite spreads to all of them.
    """
    out = np.zeros((n_segments, values.shape[1]), values.dtype)
    found, sums = segments(values, ids, n_segments)
    out[found] = sums
    return out


def segments(values: Array, ids: Array, n_segments: int) -> tuple[Any, Array]:
    """Return an index of the rows of `segment_sum` that are not zero by default, and those rows."""
    if n_segments <= _ONE_HOT_LIMIT:
        one_hot = ids[:, None] == np.arange(n_segments)
        return slice(None), one_hot.astype(values.dtype).T @ values
    if not ids.size:
        return ids, values
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    return ids[starts], np.add.reduceat(values[order], starts, axis=0)


def smooth(values: ArrayLike, width: int) -> Array:
    """Return the mean of each value and its neighbours: ``width`` of them, fewer at the ends.

    Each window is summed anew, since a running sum would not recover from a value of 1e30.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return values
    reach, window = width // 2, np.ones(width // 2 * 2 + 1)
    inside = slice(reach, reach + len(values))
    counts = np.convolve(np.ones(len(values)), window)[inside]
    return np.convolve(values, window)[inside] / counts
