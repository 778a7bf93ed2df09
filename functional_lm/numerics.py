"""Formulas that several layers share, each with its derivative.

They take plain arrays, keep the dtype, and never write to an argument.
"""

import math

import numpy as np
from numpy.polynomial.chebyshev import chebval
from numpy.typing import ArrayLike

from .contract import Array

__all__ = [
    "normal_cdf",
    "row_dot",
    "row_mean",
    "rows",
    "segment_sum",
    "sigmoid",
    "smooth",
    "softmax",
    "softmax_vjp",
    "sum_rows",
]


def rows(x: Array) -> Array:
    """Return ``x`` as a matrix ``(N, D)``: all leading axes are one axis of rows."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def row_dot(a: Array, b: Array) -> Array:
    """Return Σᵢ aᵢ·bᵢ over the last axis, kept as an axis of size 1.

    Contiguous rows are summed in blocks; strided ones would be summed naively, less accurately.
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
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def softmax(x: Array) -> Array:
    """Return the softmax of each row: exp(x − max x) / Σ exp(x − max x)."""
    x = np.ascontiguousarray(x)  # strided rows are summed naively, less accurately
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def softmax_vjp(probs: Array, g: Array) -> Array:
    """Return the cotangent of the rows that `softmax` mapped to ``probs``.

    ∂pᵢ/∂xⱼ = pᵢ·(δᵢⱼ − pⱼ)  ⇒  d_x = p·(g − Σⱼ gⱼ·pⱼ)
    """
    return probs * (g - row_dot(g, probs))


def row_mean(x: Array) -> Array:
    """Return the mean over the last axis, kept as an axis of size 1."""
    return np.ascontiguousarray(x).mean(axis=-1, keepdims=True)


def normal_cdf(x: Array) -> Array:
    """Return Φ(x) = ½·erfc(−x/√2), the distribution function of N(0, 1), to a few units of 2⁻⁵³.

    With z = |x|/√2, erfc(z) is exp(−z²)/(1 + 2z) times a function that is smooth in
    t = (z − k)/(z + k), k = 3.75, and that a Chebyshev series gives from 0 to infinity (Shepherd
    and Laframboise 1981). Above zero Φ(x) = 1 − Φ(−x).

    Derivative: Φ' = exp(−x²/2)/√(2π).
    """
    z = np.abs(x) * math.sqrt(0.5)
    t = 1.0 - 7.5 / (z + 3.75)
    series = chebval(t, np.array(_ERFC, x.dtype))
    tail = 0.5 * np.exp(-z * z) / (1.0 + 2.0 * z) * series
    return np.where(x > 0, 1.0 - tail, tail)


# fmt: off
_ERFC = (
    1.1775789345674017, -0.004590054580646478, -0.08424913336651792, 0.05920993999819189,
    -0.026658668435305753, 0.009074997670705265, -0.002413163540417608, 0.0004907758365258086,
    -6.916973302501207e-05, 4.13902798607301e-06, 7.74038306619849e-07, -2.1886401049234397e-07,
    1.076499946567091e-08, 4.521959811218287e-09, -7.754400208831351e-10, -6.318088340886684e-11,
    2.86879501093067e-11, 1.9455868545777347e-13, -9.65469674843344e-13, 3.25254814814874e-14,
    3.3478119482868056e-14, -1.864562880419313e-15, -1.2507950530688648e-15, 7.418235256624044e-17,
    5.068148904796111e-17, -2.2370566594359995e-18, -2.187342944303018e-18, 2.6766327399258762e-20,
)
# fmt: on
"""Coefficients of (1 + 2z)·exp(z²)·erfc(z), computed with 60 digits at 60 Chebyshev nodes."""


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
    if n_segments <= _ONE_HOT_LIMIT:
        one_hot = ids[:, None] == np.arange(n_segments)
        return one_hot.astype(values.dtype).T @ values
    out = np.zeros((n_segments, values.shape[1]), values.dtype)
    if ids.size:
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        out[ids[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return out


def smooth(values: ArrayLike, width: int) -> Array:
    """Return the mean of each value and its neighbours: ``width`` of them, fewer at the ends.

    Each window is summed separately: a running sum would not recover from a value of 1e30.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return values
    reach, window = width // 2, np.ones(width // 2 * 2 + 1)
    inside = slice(reach, reach + len(values))
    counts = np.convolve(np.ones(len(values)), window)[inside]
    return np.convolve(values, window)[inside] / counts
