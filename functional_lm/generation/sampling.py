"""From logits to a token: small pure functions that chain.

>>> logits = np.array([0.0, 1.0, 3.0, 2.0])
>>> keep_top_k(logits, 2)
array([-inf, -inf,   3.,   2.])
>>> sample((0,), keep_top_k(logits, 1))
2
"""

import math

import numpy as np

from .. import prng
from ..contract import Array, Key, expect_int, expect_number
from ..numerics import softmax


def scale_by_temperature(logits: Array, temperature: float) -> Array:
    """Return ``logits / temperature``; at temperature 0 only the largest stays, the others −inf.

    Args:
        logits: (V,).
        temperature: below 1 sharpens the distribution, above 1 flattens it.

    Raises:
        ValueError: for a negative temperature.
    """
    temperature = expect_number("temperature", temperature, low=0.0)
    if temperature == 0.0:
        return keep_top_k(logits, 1)
    return (logits - logits.max()) / temperature


def keep_top_k(logits: Array, k: int) -> Array:
    """Return the logits with all but the k largest set to −inf; of equal ones the first stay."""
    k = expect_int("top_k", k)
    kept = np.argsort(-logits, kind="stable")[:k]
    out = np.full_like(logits, -math.inf)
    out[kept] = logits[kept]
    return out


def sample(key: Key, logits: Array) -> int:
    """Draw a token from the softmax of the logits (V,), by inverting the distribution function."""
    cumulative = np.cumsum(softmax(logits.astype(np.float64)))
    drawn = prng.uniform(key) * cumulative[-1]
    return int(np.searchsorted(cumulative, drawn, side="right"))
