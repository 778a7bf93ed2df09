"""Randomness as a value: a key is a tuple of small ints, its children are ``key + (i,)``.

The same key always gives the same numbers, and different keys independent streams. Behind a key
stands ``np.random.SeedSequence(key[0], spawn_key=key[1:])``: a plain list of ints would collide,
as ``[5]`` and ``[5, 0]`` seed the same stream. There is no hidden generator and no global seed.
"""

import math
from typing import Any, overload

import numpy as np

from .contract import Array, Key, expect_dtype

__all__ = [
    "bernoulli",
    "expect_key",
    "fold_in",
    "generator",
    "integers",
    "matrix_std",
    "normal",
    "permutation",
    "uniform",
]

_SEED_LIMIT = 2**64
_CHILD_LIMIT = 2**32  # one SeedSequence word each, so that no two keys share a stream


def expect_key(key: Any) -> Key:
    """Return the key if it is a tuple of small ints.

    Raises:
        TypeError: for anything else.
        ValueError: for an empty tuple or an int out of range.
    """
    if not isinstance(key, tuple):
        fix = f"pass ({key},)" if isinstance(key, int) else "pass (seed,)"
        raise TypeError(f"key must be a tuple of ints: got {key!r}; {fix}")
    if not key:
        raise ValueError("key must hold at least a seed: got (); pass (seed,)")
    for position, part in enumerate(key):
        if isinstance(part, bool) or not isinstance(part, (int, np.integer)):
            raise TypeError(f"key must be a tuple of ints: got {key!r}; pass (seed,)")
        limit = _CHILD_LIMIT if position else _SEED_LIMIT
        if not 0 <= part < limit:
            raise ValueError(f"key[{position}] must lie in [0, {limit}): got {part}; fold it first")
    return key


def generator(key: Key) -> np.random.Generator:
    """Return a fresh NumPy generator that this key alone determines."""
    return np.random.Generator(np.random.PCG64(_sequence(key)))


def _sequence(key: Key) -> np.random.SeedSequence:
    seed, *children = expect_key(key)
    return np.random.SeedSequence(int(seed), spawn_key=tuple(int(i) for i in children))


@overload
def fold_in(key: Key, data: int) -> Key: ...
@overload
def fold_in(key: None, data: int) -> None: ...
@overload
def fold_in(key: Key | None, data: int) -> Key | None: ...
def fold_in(key: Key | None, data: int) -> Key | None:
    """Return the child ``key + (data,)``; no key has no children."""
    return None if key is None else (*expect_key(key), data)


def normal(
    key: Key | None, shape: tuple[int, ...], *, scale: float | Array = 1.0, dtype: Any = np.float32
) -> Array:
    """Draw from N(0, scale²); a scale may be an array that broadcasts to the shape.

    float32 draws are the float64 draws rounded, so that one key means one model in both dtypes.
    No key: zeros that take no memory, for the shapes of a model without its parameters.

    Raises:
        TypeError: for a dtype that is not float32 or float64.
    """
    dtype = expect_dtype(dtype)
    if key is None:
        return np.broadcast_to(np.zeros((), dtype), shape)
    draws = generator(key).standard_normal(shape)
    draws *= scale
    return draws.astype(dtype, copy=False)


def matrix_std(d_in: int, d_out: int, init_scale: float | None = None) -> float:
    """Return the standard deviation of a new matrix: √(2/(d_in + d_out)), or init_scale/√d_in."""
    return (2 / (d_in + d_out)) ** 0.5 if init_scale is None else init_scale / d_in**0.5


def bernoulli(key: Key, shape: tuple[int, ...], *, p: float, start: int = 0) -> Array:
    """Draw booleans that are true with probability ``p``, to a resolution of 2⁻²⁴.

    They are those of a larger draw from its entry ``start`` on, counted through all its axes.
    """
    bits = np.random.PCG64(_sequence(key))
    bits.advance(start // 2)  # a number of 64 bits makes two draws
    draws = np.random.Generator(bits).random(start % 2 + math.prod(shape), dtype=np.float32)
    return draws[start % 2 :].reshape(shape) < p


def integers(key: Key, shape: tuple[int, ...], *, low: int, high: int) -> Array:
    """Draw int64 uniformly from ``[low, high)``."""
    return generator(key).integers(low, high, size=shape)


def uniform(key: Key | None, shape: tuple[int, ...] = ()) -> Array:
    """Draw float64 uniformly from ``[0, 1)``. No key: zeros, as from `normal`."""
    if key is None:
        return np.broadcast_to(0.0, shape)
    return np.asarray(generator(key).random(shape))


def permutation(key: Key, n: int) -> Array:
    """Return the numbers 0 to n − 1 in random order, int64 (n,)."""
    return generator(key).permutation(n)
