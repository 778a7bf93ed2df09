"""Selective state space: a linear recurrence whose decay, input and output follow the data
(Mamba 2: Dao and Gu 2024, section 6, "SSD").

Forward. Each head has a state h (N, P), from which position t reads after it has written its input:

    hₜ = exp(αₜ)·hₜ₋₁ + bₜ·uₜᵀ      yₜ = hₜᵀ·cₜ + D·xₜ      αₜ = Δₜ·a, uₜ = Δₜ·xₜ, a = −exp(A_log)

Head h shares b and c with the other heads of group h // R, R = H/G.

In chunks of Q positions this is a few matrix products. Let Lₜₛ be what is left at t of what was
there after s, where s = 0 is the start of the chunk:

    Lₜₛ = exp(Σ αᵣ over s < r ≤ t) for s ≤ t, else 0        t = 1 … Q, s = 0 … Q

With X, U, B, C the rows of a chunk, h the state before it and h' the one after, unrolling gives

    S = C·Bᵀ      W = L∘S without the column s = 0
    Y  = W·U + l∘(C·h) + D·X       l = L₁₀ … L_Q0, the column s = 0
    h' = L_Q0·h + (m∘B)ᵀ·U         m = L_Q1 … L_QQ, the last row

and only h' → h of the next chunk is left to do one by one. No exponent is positive.

VJP. With cotangents g of Y, and d_h' of h' from the chunk after it, reading the forward upwards:

    d_h = L_Q0·d_h' + Cᵀ·(l∘g)                  the state runs forwards, its cotangent backwards
    d_W = g·Uᵀ          d_S = L∘d_W
    d_C = d_S·B + (l∘g)·hᵀ
    d_B = d_Sᵀ·C + (m∘U)·d_h'ᵀ                  b and c: summed over the R heads of their group
    d_U = Wᵀ·g + m∘(B·d_h')

L occurs in W, in l, in m and in L_Q0, so the entry (t, s) of d_L is the sum of

    d_Wₜₛ·Sₜₛ if s > 0      gₜ·(C·h)ₜ if s = 0      uₛ·(B·d_h')ₛ if t = Q, s > 0
    Σ h∘d_h' if t = Q, s = 0

and αᵣ occurs in each Lₜₛ with s < r ≤ t:

    d_αᵣ = Σ d_Lₜₛ·Lₜₛ over s < r ≤ t

`chunks.decays` and its derivative do this without differences of cumulative sums, which would
cancel down to rounding errors where decays are strong. At last, with α = Δ·a and u = Δ·x:

    d_Δ = a·d_α + Σ over P of x·d_u        d_x = Δ·d_u + D·g
    d_A_log = a·Σ Δ·d_α                    d_D = Σ g·x                     as ∂a/∂A_log = a

JVP. Reading the forward downwards, with t_L from `chunks.decays_jvp`, whose parts are t_l, t_m and
t_L_Q0:

    t_α = a·t_Δ + Δ·t_a, where t_a = a·t_A_log        t_u = x·t_Δ + Δ·t_x
    t_S = t_C·Bᵀ + C·t_Bᵀ        t_W = t_L∘S + L∘t_S
    t_Y  = t_W·U + W·t_U + t_l∘(C·h) + l∘(t_C·h + C·t_h) + t_D·X + D·t_X
    t_h' = t_L_Q0·h + L_Q0·t_h + (m∘t_B + t_m∘B)ᵀ·U + (m∘B)ᵀ·t_U

Shapes: x is ``WithState(Inputs(x, dt, b, c), state)`` with x (B, T, H, P), dt (B, T, H), b and c
(B, T, G, N) and state (B, H, N, P); y is ``WithState(y, state)`` with y (B, T, H, P).
"""

from typing import Any, NamedTuple

import numpy as np

from ...chunks import decays, decays_jvp, decays_vjp, join, split
from ...contract import (
    Array,
    Key,
    Tree,
    WithState,
    expect_cotangent,
    expect_dtype,
    expect_inputs,
    expect_int,
    expect_residuals,
    expect_tangent,
    expect_with_state,
)
from ...numerics import row_dot, rows, sum_rows
from ...prng import uniform

__all__ = ["Inputs", "Residuals", "forward", "init", "jvp", "vjp"]


class Inputs(NamedTuple):
    """What a scan reads along time, and its cotangent."""

    x: Array  # (B, T, H, P)
    dt: Array  # (B, T, H) the step sizes Δ, not negative
    b: Array  # (B, T, G, N) how each position writes to the state
    c: Array  # (B, T, G, N) how it reads


class Residuals(NamedTuple):
    """What `vjp` needs. With n chunks, "…" is n, B, G and R = H/G; for b and c, R = 1."""

    x: Array  # (…, Q, P)
    dt: Array  # (…, Q, 1)
    b: Array  # (…, Q, N)
    c: Array  # (…, Q, N)
    decay: Array  # (…, Q, 1+Q) L
    scores: Array  # (…, Q, Q) S
    states: Array  # (n+1, B, G, R, N, P) before each chunk, and after the last
    a: Array  # (G, R, 1, 1)
    skip: Array  # (G, R, 1, 1) D
    length: int  # T


def init(key: Key | None, *, n_heads: int, dtype: Any = np.float32) -> Tree:
    """Draw the decay rates −a uniformly from [1, 16), as Mamba 2 does; the skip D is one."""
    H, dtype = expect_int("n_heads", n_heads), expect_dtype(dtype)
    return {"A_log": np.log(1.0 + 15.0 * uniform(key, (H,))).astype(dtype), "D": np.ones(H, dtype)}


def forward(params: Tree, x: WithState, *, chunk_size: int = 32) -> tuple[WithState, Residuals]:
    """Return what each position reads, (B, T, H, P), and the state after the text.

    Args:
        params: ``A_log`` and ``D``, both (H,).
        x: the inputs, and the state before the text.
        chunk_size: the most positions of a chunk. It changes time, not values.

    Raises:
        ValueError: for an H that is not a multiple of G.
    """
    inputs, state = expect_with_state(x)
    B, T, H, N, P, G = _expect_inputs(params, inputs, state)
    a, skip = (p.reshape(G, H // G, 1, 1) for p in (-np.exp(params["A_log"]), params["D"]))
    X, dt, b, c = (_split(part, chunk_size, G) for part in inputs._replace(dt=inputs.dt[..., None]))

    decay = decays(dt * a)  # (…, Q, 1+Q)
    from_start, to_end, over_all = decay[..., :1], _to_end(decay), decay[..., -1:, :1]
    u = dt * X
    written = b.mT @ (to_end * u)  # (…, N, P)
    states = np.empty((len(X) + 1, B, G, H // G, N, P), state.dtype)
    states[0] = state.reshape(states[0].shape)
    for i in range(len(X)):
        states[i + 1] = over_all[i] * states[i] + written[i]
    scores = c @ b.mT  # (…, Q, Q)
    y = (decay[..., 1:] * scores) @ u + from_start * (c @ states[:-1]) + skip * X
    after = states[-1].reshape(state.shape).copy()
    residuals = Residuals(X, dt, b, c, decay, scores, states, a, skip, T)
    return WithState(_join(y, T), after), residuals


def vjp(residuals: Residuals, g: WithState) -> tuple[Tree, WithState]:
    """Return ``({"A_log", "D"}, WithState(Inputs(...), d_state))`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    X, dt, b, c, decay, scores, states, a, skip, T = residuals
    _, B, G, R, N, P = states.shape
    expect_cotangent(g.x, (B, T, G * R, P), X.dtype)
    expect_cotangent(g.state, (B, G * R, N, P), X.dtype)
    from_start, to_end, over_all = decay[..., :1], _to_end(decay), decay[..., -1:, :1]
    d_y, u = _split(g.x, X.shape[-2], G), dt * X

    d_read = from_start * d_y  # (…, Q, P), of C·h
    d_before = c.mT @ d_read  # (…, N, P), as far as the chunk's own positions read
    d_states = np.empty_like(states)
    d_states[-1] = g.state.reshape(states[-1].shape)
    for i in reversed(range(len(X))):
        d_states[i] = over_all[i] * d_states[i + 1] + d_before[i]
    before, d_after = states[:-1], d_states[1:]

    d_weights = d_y @ u.mT  # (…, Q, Q)
    d_scores = (decay[..., 1:] * d_weights).sum(axis=3, keepdims=True)  # over the heads of a group
    d_c = d_scores @ b + (d_read @ before.mT).sum(axis=3, keepdims=True)
    d_b = d_scores.mT @ c + ((to_end * u) @ d_after.mT).sum(axis=3, keepdims=True)
    d_written = b @ d_after  # (…, Q, P)
    d_u = (decay[..., 1:] * scores).mT @ d_y + to_end * d_written

    d_decay = np.empty_like(decay)
    d_decay[..., 1:] = d_weights * scores
    d_decay[..., :1] = row_dot(d_y, c @ before)
    d_decay[..., -1:, 1:] += row_dot(u, d_written).mT
    d_decay[..., -1, 0] += (before * d_after).sum(axis=(-2, -1))
    d_alpha = decays_vjp(decay, d_decay)  # (…, Q, 1)

    d_dt = a * d_alpha + row_dot(X, d_u)
    d_x = dt * d_u + skip * d_y
    d_a = sum_rows(rows(_join(dt * d_alpha, T)[..., 0]))  # (H,)
    d_skip = sum_rows(rows(_join(row_dot(d_y, X), T)[..., 0]))
    d_params = {"A_log": d_a * a.ravel(), "D": d_skip}
    d_inputs = Inputs(_join(d_x, T), _join(d_dt, T)[..., 0], _join(d_b, T), _join(d_c, T))
    return d_params, WithState(d_inputs, d_states[0].reshape(g.state.shape))


def jvp(residuals: Residuals, t: tuple[Tree, WithState]) -> WithState:
    """Return ``WithState(t_y, t_state)`` for the tangents of the parameters, inputs and state."""
    expect_residuals(residuals, Residuals)
    X, dt, b, c, decay, scores, states, a, skip, T = residuals
    _, B, G, R, N, P = states.shape
    of_groups, of_heads = (B, T, G, N), dict.fromkeys(("A_log", "D"), (G * R,))
    of_inputs = Inputs._make([(B, T, G * R, P), (B, T, G * R), of_groups, of_groups])
    shapes = of_heads, WithState._make([of_inputs, (B, G * R, N, P)])
    t_params, (t_inputs, t_state) = expect_tangent(t, shapes, X.dtype)
    t_inputs = t_inputs._replace(dt=t_inputs.dt[..., None])
    t_x, t_dt, t_b, t_c = (_split(part, X.shape[-2], G) for part in t_inputs)

    t_a = a * t_params["A_log"].reshape(a.shape)
    t_decay = decays_jvp(decay, a * t_dt + dt * t_a)  # (…, Q, 1+Q)
    from_start, to_end, over_all = decay[..., :1], _to_end(decay), decay[..., -1:, :1]
    t_from_start, t_to_end, t_over_all = t_decay[..., :1], _to_end(t_decay), t_decay[..., -1:, :1]
    u, t_u = dt * X, t_dt * X + dt * t_x
    t_written = t_b.mT @ (to_end * u) + b.mT @ (t_to_end * u + to_end * t_u)  # (…, N, P)
    t_states = np.empty_like(states)
    t_states[0] = t_state.reshape(states[0].shape)
    for i in range(len(X)):
        t_states[i + 1] = t_over_all[i] * states[i] + over_all[i] * t_states[i] + t_written[i]
    before, t_before = states[:-1], t_states[:-1]

    t_scores = t_c @ b.mT + c @ t_b.mT  # (…, Q, Q)
    t_weights = t_decay[..., 1:] * scores + decay[..., 1:] * t_scores
    t_y = t_weights @ u + (decay[..., 1:] * scores) @ t_u
    t_y += t_from_start * (c @ before) + from_start * (t_c @ before + c @ t_before)
    t_y += t_params["D"].reshape(skip.shape) * X + skip * t_x
    return WithState(_join(t_y, T), t_states[-1].reshape(t_state.shape).copy())


def _to_end(decay: Array) -> Array:
    """Return m as a column (…, Q, 1): what is left of each position's input at the end."""
    return decay[..., -1:, 1:].mT


def _split(x: Array, chunk_size: int, n_groups: int) -> Array:
    """Cut (B, T, H, K) into chunks (n, B, G, H/G, Q, K).

    The last one is filled up with zeros. There Δ is 0, so that the state stays as it is.
    """
    chunks = split(x, chunk_size)  # (n, B, H, Q, K)
    n, B, H, Q, K = chunks.shape
    return chunks.reshape(n, B, n_groups, H // n_groups, Q, K)


def _join(chunks: Array, length: int) -> Array:
    """Undo `_split`: (n, B, G, R, Q, K) to (B, T, H, K)."""
    n, B, G, R, Q, K = chunks.shape
    return join(chunks.reshape(n, B, G * R, Q, K), length)


def _expect_inputs(params: Tree, x: Any, state: Array) -> tuple[int, int, int, int, int, int]:
    """Require parameters, inputs and a state that fit, and return B, T, H, N, P and G."""
    if not isinstance(x, Inputs):
        raise TypeError(
            f"x must be Inputs(x, dt, b, c) in a WithState: got {type(x).__name__}; pass Inputs(*x)"
        )
    expect_inputs(params, "A_log: H, D: H", x.x, "B T H P")
    expect_inputs(
        {"dt": x.dt, "b": x.b, "c": x.c, "state": state},
        "dt: B T H, b: B T G N, c: B T G N, state: B H N P",
        x.x,
        "B T H P",
    )
    (B, T, H, P), (G, N) = x.x.shape, x.b.shape[2:]
    if not (H and P and G and N) or H % G:
        raise ValueError(
            "heads must be a multiple of groups, and no size zero: "
            f"got H={H}, G={G}, P={P}, N={N}; repeat or drop heads"
        )
    return B, T, H, N, P, G
