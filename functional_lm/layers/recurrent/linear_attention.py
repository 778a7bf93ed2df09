"""Causal linear attention, in chunks (Katharopoulos et al. 2020, eqs. 18 to 20).

Forward. Attention without the softmax is a recurrence. Each head has a state S (K, Kv), to which
every position adds its key and value before it reads with its query:

    Sₜ = Sₜ₋₁ + kₜ·vₜᵀ        oₜ = Sₜᵀ·qₜ/√K

No sum of weights divides oₜ, as in the paper; normalise it afterwards (Qin et al. 2022). In chunks
of C positions this is a few matrix products. With Q, K, V the rows of a chunk and S the state
before it, a position reads S, and of its own chunk what comes no later than itself:

    A = Q·Kᵀ below and on the diagonal, else 0
    O = (Q·S + A·V)/√K                           S' = S + Kᵀ·V

VJP. With G = g/√K for the cotangent g of O, and d_S' that of S', which the next chunk hands back:

    d_S = d_S' + Qᵀ·G              the state runs forwards, its cotangent backwards
    d_A = G·Vᵀ below and on the diagonal, else 0
    d_Q = G·Sᵀ + d_A·K
    d_K = d_Aᵀ·Q + V·d_S'ᵀ
    d_V = Aᵀ·G + K·d_S'

All chunks run at once: S and d_S are cumulative sums over them. One state a chunk is kept, and A
is computed again, so that time and memory grow with T·C.

JVP. Every line is a sum of products, so with t_A below and on the diagonal, else 0:

    t_A = t_Q·Kᵀ + Q·t_Kᵀ        t_O = (t_Q·S + Q·t_S + t_A·V + A·t_V)/√K
    t_S' = t_S + t_Kᵀ·V + Kᵀ·t_V

Shapes: x is ``WithState(QKV(q, k, v), state)`` with q and k (B, T, H, K), v (B, T, H, Kv) and state
(B, H, K, Kv); y is ``WithState(y, state)`` with y (B, T, H, Kv).
"""

import math
from typing import NamedTuple

import numpy as np

from ...chunks import join, split
from ...contract import (
    Array,
    Tree,
    WithState,
    expect_cotangent,
    expect_inputs,
    expect_params,
    expect_residuals,
    expect_tangent,
    expect_with_state,
    init_nothing,
)
from ...heads import QKV

__all__ = ["Inputs", "Residuals", "forward", "init", "jvp", "vjp"]

Inputs = QKV
"""What the layer reads along time."""


class Residuals(NamedTuple):
    """What `vjp` needs, in n chunks of C positions."""

    q: Array  # (n, B, H, C, K)
    k: Array  # (n, B, H, C, K)
    v: Array  # (n, B, H, C, Kv)
    states: Array  # (n, B, H, K, Kv) before each chunk
    length: int  # T


init = init_nothing


def forward(params: Tree, x: WithState, *, chunk_size: int = 32) -> tuple[WithState, Residuals]:
    """Return what each query reads, (B, T, H, Kv), and the state after the text.

    Args:
        params: ``{}``.
        x: queries, keys and values, and the state before the text.
        chunk_size: the most positions that are computed at once. It changes time, not values.
    """
    expect_params(params)
    inputs, state = expect_with_state(x)
    if not isinstance(inputs, QKV):
        raise TypeError(f"x must be WithState(QKV(q, k, v), state): got {type(inputs).__name__}")
    expect_inputs(
        {"k": inputs.k, "v": inputs.v, "state": state},
        "k: B T H K, v: B T H Kv, state: B H K Kv",
        *(inputs.q, "B T H K", "q"),
    )

    q, k, v = (split(part, chunk_size) for part in inputs)  # (n, B, H, C, ...)
    added = k.mT @ v  # (n, B, H, K, Kv)
    states = np.cumsum(np.concatenate([state[None], added]), axis=0)  # (n+1, B, H, K, Kv)
    read = q @ states[:-1] + _causal(q @ k.mT) @ v
    T = inputs.q.shape[1]
    y = join(read * (1 / math.sqrt(q.shape[-1])), T)
    return WithState(y, states[-1]), Residuals(q, k, v, states[:-1], T)


def vjp(residuals: Residuals, g: WithState) -> tuple[Tree, WithState]:
    """Return ``({}, WithState(QKV(d_q, d_k, d_v), d_state))`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    q, k, v, states, T = residuals
    _, B, H, K, Kv = states.shape
    expect_cotangent(g.x, (B, T, H, Kv), q.dtype)
    expect_cotangent(g.state, (B, H, K, Kv), q.dtype)
    d_read = split(g.x * (1 / math.sqrt(K)), q.shape[-2])  # (n, B, H, C, Kv)
    d_states = np.cumsum(np.concatenate([g.state[None], (q.mT @ d_read)[::-1]]), axis=0)[::-1]
    d_after = d_states[1:]  # (n, B, H, K, Kv) of the state after each chunk
    d_scores = _causal(d_read @ v.mT)  # (n, B, H, C, C)
    d_q = d_read @ states.mT + d_scores @ k
    d_k = d_scores.mT @ q + v @ d_after.mT
    d_v = _causal(q @ k.mT).mT @ d_read + k @ d_after
    return {}, WithState(QKV(*(join(part, T) for part in (d_q, d_k, d_v))), d_states[0])


def jvp(residuals: Residuals, t: tuple[Tree, WithState]) -> WithState:
    """Return ``WithState(t_y, t_state)`` for ``({}, WithState(QKV(t_q, t_k, t_v), t_state))``."""
    expect_residuals(residuals, Residuals)
    q, k, v, states, T = residuals
    _, B, H, K, Kv = states.shape
    of_keys = (B, T, H, K)
    of_inputs = QKV._make([of_keys, of_keys, (B, T, H, Kv)])
    of_x = WithState._make([of_inputs, (B, H, K, Kv)])
    _, (t_inputs, t_state) = expect_tangent(t, ({}, of_x), q.dtype)
    t_q, t_k, t_v = (split(part, q.shape[-2]) for part in t_inputs)  # (n, B, H, C, ...)
    t_added = t_k.mT @ v + k.mT @ t_v  # (n, B, H, K, Kv)
    t_states = np.cumsum(np.concatenate([t_state[None], t_added]), axis=0)  # (n+1, B, H, K, Kv)
    t_read = t_q @ states + q @ t_states[:-1]
    t_read += _causal(t_q @ k.mT + q @ t_k.mT) @ v + _causal(q @ k.mT) @ t_v
    return WithState(join(t_read * (1 / math.sqrt(K)), T), t_states[-1])


def _causal(scores: Array) -> Array:
    """Return the scores (..., C, C) with zeros above the diagonal."""
    return scores * np.tri(scores.shape[-1], dtype=scores.dtype)
