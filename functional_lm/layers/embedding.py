"""Embedding, ``y = W[tokens]``: the row of each token.

Forward: yₙ = W[tₙ] with weight W (V, D) and integer tokens t.

VJP. A token that occurs several times uses its row several times, so the cotangents add:

    ∂L/∂W[v] = Σₙ gₙ·[tₙ = v]

Tokens are labels, not numbers: their cotangent is None.

JVP. The map is linear: t_y = t_W[tokens].

Shapes: tokens (...), y (..., D).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_sizes,
    expect_tangent,
    expect_tokens,
)
from ..numerics import rows, segment_sum
from ..prng import normal

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    tokens: Array  # (...) integers
    weight: Array  # (V, D), for its shape and dtype


def init(key: Key | None, *, vocab_size: int, d_model: int, dtype: Any = np.float32) -> Tree:
    """Draw the rows from N(0, 0.02²), as GPT-2 does."""
    shape = expect_sizes(vocab_size=vocab_size, d_model=d_model)
    return {"weight": normal(key, shape, scale=0.02, dtype=dtype)}


def forward(params: Tree, tokens: Array) -> tuple[Array, Residuals]:
    """Return the rows ``weight[tokens]``, shape (..., D).

    Raises:
        TypeError: for tokens that are not integers.
        ValueError: for an id outside ``[0, V)``, with its position and value.
    """
    expect_inputs(params, "weight: V D")
    weight = params["weight"]
    expect_tokens("tokens", tokens, len(weight))
    return weight[tokens], Residuals(tokens, weight)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, None]:
    """Return ``({"weight"}, None)`` for the cotangent g (..., D)."""
    expect_residuals(residuals, Residuals)
    tokens, weight = residuals
    expect_cotangent(g, (*tokens.shape, weight.shape[1]), weight.dtype)
    d_weight = segment_sum(rows(g), tokens.ravel(), len(weight))  # (V, D)
    return {"weight": d_weight}, None  # tokens are labels


def jvp(residuals: Residuals, t: tuple[Tree, None]) -> Array:
    """Return t_y (..., D) for the tangents ``({"weight"}, None)``."""
    expect_residuals(residuals, Residuals)
    tokens, weight = residuals
    t_params, _ = expect_tangent(t, ({"weight": weight.shape}, None), weight.dtype)
    return t_params["weight"][tokens]
