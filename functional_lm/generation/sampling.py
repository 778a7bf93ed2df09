"""From logits to a token: small pure functions that chain.

A transform maps the logits (V,) of the next token, and the tokens (T,) before it, to other logits.
Excluded tokens get −inf. Transforms are made by the functions below and chained in the order in
which they apply:

>>> transform = chain(repetition_penalty(1.2), temperature(0.8), top_k(40), top_p(0.95))
>>> logits = transform(np.array([0.0, 1.0, 3.0, 2.0]), np.array([2]))
>>> sample((0,), logits)
2
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from .. import prng
from ..contract import Array, Key, expect_int, expect_logits, expect_number
from ..numerics import softmax

__all__ = [
    "Transform",
    "chain",
    "min_p",
    "most_likely",
    "repetition_penalty",
    "sample",
    "temperature",
    "top_k",
    "top_p",
]

Transform: TypeAlias = Callable[[Array, Array], Array]


def chain(*transforms: Transform) -> Transform:
    """Return the transform that applies others in order."""

    def transform(logits: Array, tokens: Array) -> Array:
        for one in transforms:
            logits = one(logits, tokens)
        return logits

    return transform


def temperature(value: float) -> Transform:
    """Divide by a temperature: below 1 sharpens the distribution, above 1 flattens it.

    At 0 only the most likely token stays, the first of equal ones.

    Raises:
        ValueError: for a negative temperature.
    """
    value = expect_number("temperature", value, low=0.0)
    if value == 0.0:
        return top_k(1)

    def transform(logits: Array, tokens: Array) -> Array:
        with np.errstate(over="ignore"):  # far below the largest is −inf, which excludes
            scaled = (logits - logits.max()).astype(np.float64) / value
            return scaled.astype(logits.dtype)

    return transform


def top_k(k: int) -> Transform:
    """Keep the k most likely tokens, of equal ones the first.

    Raises:
        ValueError: for k below 1.
    """
    k = expect_int("top_k", k)
    return lambda logits, tokens: _keep(logits, np.argsort(-logits, kind="stable")[:k])


def top_p(p: float) -> Transform:
    """Keep the fewest most likely tokens whose probabilities reach p (Holtzman et al. 2020).

    Raises:
        ValueError: for p outside (0, 1].
    """
    p = _expect_share("top_p", p)

    def transform(logits: Array, tokens: Array) -> Array:
        order = np.argsort(-logits, kind="stable")
        before = np.cumsum(_probabilities(logits[order])) - _probabilities(logits[order])
        return _keep(logits, order[before < p])

    return transform


def min_p(p: float) -> Transform:
    """Keep the tokens at least p times as likely as the most likely one (Nguyen et al. 2024).

    Raises:
        ValueError: for p outside (0, 1].
    """
    threshold = math.log(_expect_share("min_p", p))
    return lambda logits, tokens: _keep(logits, np.flatnonzero(logits >= logits.max() + threshold))


def repetition_penalty(penalty: float) -> Transform:
    """Make tokens that came before less likely (Keskar et al. 2019, section 4.1).

    Their positive logits are divided by the penalty, their negative ones multiplied; 1 changes
    nothing.

    Raises:
        ValueError: for a penalty that is not positive.
    """
    penalty = expect_number("repetition_penalty", penalty, low=1e-6)

    def transform(logits: Array, tokens: Array) -> Array:
        seen = np.unique(tokens)
        out = logits.copy()
        out[seen] = np.where(out[seen] > 0, out[seen] / penalty, out[seen] * penalty)
        return out

    return transform


def sample(key: Key, logits: Array) -> int:
    """Draw a token from the softmax of the logits (V,), by inverting the distribution function.

    Raises:
        ValueError: for logits that are NaN or +inf, or all −inf.
    """
    expect_logits(logits)
    cumulative = np.cumsum(_probabilities(logits))
    drawn = prng.uniform(key) * cumulative[-1]
    return int(np.searchsorted(cumulative, drawn, side="right"))


def most_likely(logits: Array) -> int:
    """Return the token with the largest of the logits (V,), the first of equal ones.

    Raises:
        ValueError: for logits that are NaN or +inf, or all −inf.
    """
    expect_logits(logits)
    return int(logits.argmax())


def _probabilities(logits: Array) -> Array:
    return softmax(logits.astype(np.float64))


def _keep(logits: Array, kept: Array) -> Array:
    out = np.full_like(logits, -math.inf)
    out[kept] = logits[kept]
    return out


def _expect_share(name: str, p: float) -> float:
    p = expect_number(name, p, low=0.0, high=1.0)
    if p == 0.0:
        raise ValueError(f"{name} must be above 0: got 0; for greedy sampling pass temperature 0")
    return p
