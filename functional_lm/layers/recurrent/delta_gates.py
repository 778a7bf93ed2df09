"""The gates of a gated delta rule: how much to correct and how much to keep
(Yang, Kautz and Hatamizadeh 2024, section 3.4; the decay is that of Mamba 2).

Forward, entry by entry of b and a, with a rate A_log and a bias for each of H heads:

    β = σ(b)        g = −exp(A_log)·Δ,  Δ = softplus(a + bias) = log(1 + exp(a + bias))

β is the share of the error that is corrected, exp(g) what is kept of the memory.

VJP. With cotangents g_β and g_g, σ' = σ·(1 − σ) and softplus' = σ:

    d_b = g_β·β·(1 − β)
    d_a = −g_g·exp(A_log)·σ(a + bias)        d_bias = sum of the rows of d_a
    d_A_log = sum of the rows of g_g·g       as ∂g/∂A_log = g

JVP. With the same slopes:

    t_β = β·(1 − β)·t_b        t_g = −exp(A_log)·σ(a + bias)·(t_a + t_bias) + g·t_A_log

Shapes: x is ``Gates(b, a)`` and y ``Gates(beta, log_decay)``, each of them (..., H).
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_dtype,
    expect_inputs,
    expect_int,
    expect_residuals,
    expect_tangent,
)
from ...numerics import rows, sigmoid, sum_rows
from ...prng import fold_in, uniform

__all__ = ["Gates", "Residuals", "forward", "init", "jvp", "vjp"]


class Gates(NamedTuple):
    """The output, and the numbers that become it, which may have any value."""

    beta: Array  # (..., H) between 0 and 1; before: b
    log_decay: Array  # (..., H) not positive; before: a


class Residuals(NamedTuple):
    """What `vjp` needs."""

    beta: Array  # (..., H)
    log_decay: Array  # (..., H)
    slope: Array  # (..., H) ∂log_decay/∂a


def init(key: Key | None, *, n_heads: int, dtype: Any = np.float32) -> Tree:
    """Draw rates from [1, 16) and a bias that makes Δ at a = 0 lie between 0.001 and 0.1.

    The logarithm of that Δ is uniform, so that heads remember for very different times.
    """
    H, dtype = expect_int("n_heads", n_heads), expect_dtype(dtype)
    rates = 1.0 + 15.0 * uniform(fold_in(key, 0), (H,))
    steps = 1e-3 * 100.0 ** uniform(fold_in(key, 1), (H,))
    bias = steps + np.log(-np.expm1(-steps))  # softplus(bias) = steps
    return {"A_log": np.log(rates).astype(dtype), "bias": bias.astype(dtype)}


def forward(params: Tree, x: Gates) -> tuple[Gates, Residuals]:
    """Return the two gates, each (..., H)."""
    if not isinstance(x, Gates):
        raise TypeError(f"x must be Gates(b, a): got {type(x).__name__}; pass Gates(*x)")
    expect_inputs(params, "A_log: H, bias: H", x.beta, "... H", "beta")
    expect_inputs(params, "A_log: H, bias: H", x.log_decay, "... H", "log_decay")
    if x.beta.shape != x.log_decay.shape:
        shapes = f"{x.beta.shape} and {x.log_decay.shape}"
        raise ValueError(f"beta and log_decay must have one shape: got {shapes}; reshape one")
    beta, z = sigmoid(x.beta), x.log_decay + params["bias"]
    rate = np.exp(params["A_log"])
    log_decay = -rate * np.logaddexp(z, 0.0)
    return Gates(beta, log_decay), Residuals(beta.copy(), log_decay.copy(), -rate * sigmoid(z))


def vjp(residuals: Residuals, g: Gates) -> tuple[Tree, Gates]:
    """Return ``({"A_log", "bias"}, Gates(d_b, d_a))`` for the cotangent g."""
    expect_residuals(residuals, Residuals)
    beta, log_decay, slope = residuals
    expect_cotangent(g.beta, beta.shape, beta.dtype)
    expect_cotangent(g.log_decay, beta.shape, beta.dtype)
    d_a = g.log_decay * slope
    d_params = {"A_log": sum_rows(rows(g.log_decay * log_decay)), "bias": sum_rows(rows(d_a))}
    return d_params, Gates(g.beta * beta * (1.0 - beta), d_a)


def jvp(residuals: Residuals, t: tuple[Tree, Gates]) -> Gates:
    """Return the tangents of both gates for ``({"A_log", "bias"}, Gates(t_b, t_a))``."""
    expect_residuals(residuals, Residuals)
    beta, log_decay, slope = residuals
    of_heads = dict.fromkeys(("A_log", "bias"), beta.shape[-1:])
    of_x = Gates._make([beta.shape, beta.shape])
    t_params, t_x = expect_tangent(t, (of_heads, of_x), beta.dtype)
    t_log_decay = slope * (t_x.log_decay + t_params["bias"]) + log_decay * t_params["A_log"]
    return Gates(beta * (1.0 - beta) * t_x.beta, t_log_decay)
