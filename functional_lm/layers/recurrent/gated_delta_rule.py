"""The gated delta rule, in chunks (Yang, Kautz and Hatamizadeh 2024, eq. 10 and section 3.3).

Forward. Each head has a state S (K, Kv), a memory of values by key. A position lets it decay, looks
up what it holds for the key, and corrects that towards the value, by a share of β:

    uₜ = βₜ·(vₜ − αₜ·Sₜ₋₁ᵀ·kₜ)        Sₜ = αₜ·Sₜ₋₁ + kₜ·uₜᵀ        oₜ = Sₜᵀ·qₜ        αₜ = exp(gₜ)

which is Sₜ = αₜ·(I − βₜ·kₜ·kₜᵀ)·Sₜ₋₁ + βₜ·kₜ·vₜᵀ. Without decay, g = 0, it is DeltaNet (Schlag et
al. 2021; Yang et al. 2024). Keys should have length one, and β lie in [0, 1], or in [0, 2].

Chunks. Once the corrections u are known, this is linear attention with decay. Let Lₜₛ be what is
left at t of what was there after s, where s = 0 is the start of the chunk:

    Lₜₛ = exp(Σ gᵣ over s < r ≤ t) for s ≤ t, else 0        t = 1 … C, s = 0 … C

With Q, K, V, U the rows of a chunk, S the state before it, S' the one after, l the column s = 0 of
L, M its other columns, m the last row of M, and ∘ the entrywise product, which repeats a column
along rows, unrolling gives

    O  = l∘(Q·S) + (M∘(Q·Kᵀ))·U
    S' = L_C0·S + (m∘K)ᵀ·U
    U  = β∘(V − l∘(K·S) − (N∘(K·Kᵀ))·U)        N = M without its diagonal

The last line is a triangular system with ones on the diagonal, whose inverse R comes by
substitution from the top (the "UT transform"). U splits into what needs S and what does not:

    R = (I + β∘N∘(K·Kᵀ))⁻¹        U = R·(β∘V) − W·S        W = R·(β∘l∘K)

Only U and S' are left to compute chunk by chunk. No exponent is positive.

VJP. With cotangents g of O, and d_S' of S' from the chunk after it, reading the forward upwards:

    d_U = (M∘(Q·Kᵀ))ᵀ·g + (m∘K)·d_S'
    d_S = L_C0·d_S' + Qᵀ·(l∘g) − Wᵀ·d_U        the state runs forwards, its cotangent backwards

U solves R⁻¹·U = Y, with Y = β∘(V − l∘(K·S)). A small change of both sides gives
R⁻¹·∂U = ∂Y − ∂(R⁻¹)·U, hence, without a derivative of R,

    d_Y = E        d_(R⁻¹) = −E·Uᵀ        E = Rᵀ·d_U

E is thus the cotangent of the bracket in the third line of the chunk's equations, over β, and

    d_V = β∘E
    d_Q = l∘(g·Sᵀ) + (M∘(g·Uᵀ))·K
    F   = −l∘(E·Sᵀ) − (N∘(E·Uᵀ))·K             K in that line as the key looked up, over β
    d_K = β∘F + (M∘(g·Uᵀ))ᵀ·Q − (N∘(E·Uᵀ))ᵀ·(β∘K) + m∘(U·d_S'ᵀ)
    d_β = Σ over Kv of E∘V + Σ over K of F∘K    (each row of the bracket is linear in v and k)

L occurs in l, M, N, m and L_C0, so the entry (t, s) of d_L is the sum of

    (g·Uᵀ)ₜₛ·(Q·Kᵀ)ₜₛ − βₜ·(E·Uᵀ)ₜₛ·(K·Kᵀ)ₜₛ        if s > 0 (on the diagonal L is constant)
    gₜ·(Q·S)ₜ − βₜ·Eₜ·(K·S)ₜ                        if s = 0
    kₛ·(U·d_S'ᵀ)ₛ if t = C, s > 0                   Σ S∘d_S' if t = C, s = 0

and the log decay gᵣ occurs in each Lₜₛ with s < r ≤ t: d_gᵣ = Σ d_Lₜₛ·Lₜₛ over s < r ≤ t.

JVP. With Z the bracket in the third line, U = β∘Z, and Z' what its tangent is without those of S
and U, the small change of the triangular system gives

    Z'  = t_V − t_l∘(K·S) − l∘(t_K·S) − (t_N∘(K·Kᵀ) + N∘(t_K·Kᵀ + K·t_Kᵀ))·U
    t_U = R·(t_β∘Z + β∘Z') − W·t_S
    t_O  = t_l∘(Q·S) + l∘(t_Q·S + Q·t_S)
           + (t_M∘(Q·Kᵀ) + M∘(t_Q·Kᵀ + Q·t_Kᵀ))·U + (M∘(Q·Kᵀ))·t_U
    t_S' = t_L_C0·S + L_C0·t_S + (t_m∘K + m∘t_K)ᵀ·U + (m∘K)ᵀ·t_U

where t_l, t_M, t_N and t_m are the parts of t_L, from `chunks.decays_jvp`.

Shapes: x is ``WithState(Inputs(q, k, v, beta, log_decay), state)`` with q and k (B, T, H, K),
v (B, T, H, Kv), beta and log_decay (B, T, H) and state (B, H, K, Kv); y is ``WithState(y, state)``
with y (B, T, H, Kv).
"""

from typing import NamedTuple

import numpy as np

from ...chunks import decays, decays_jvp, decays_vjp, join, split
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
from ...numerics import row_dot

__all__ = ["Inputs", "Residuals", "forward", "init", "jvp", "vjp"]


class Inputs(NamedTuple):
    """What the layer reads along time, and its cotangent."""

    q: Array  # (B, T, H, K)
    k: Array  # (B, T, H, K)
    v: Array  # (B, T, H, Kv)
    beta: Array  # (B, T, H) the share of the error that is corrected
    log_decay: Array  # (B, T, H) not positive


class Residuals(NamedTuple):
    """What `vjp` needs, in n chunks of C positions; "…" is n, B, H."""

    q: Array  # (…, C, K)
    k: Array  # (…, C, K)
    v: Array  # (…, C, Kv)
    beta: Array  # (…, C, 1)
    left: Array  # (…, C, 1+C) L
    inverse: Array  # (…, C, C) R
    w: Array  # (…, C, K) W
    u: Array  # (…, C, Kv) U
    states: Array  # (…, K, Kv) before each chunk
    length: int  # T


init = init_nothing


def forward(params: Tree, x: WithState, *, chunk_size: int = 32) -> tuple[WithState, Residuals]:
    """Return what each query reads, (B, T, H, Kv), and the state after the text.

    Args:
        params: ``{}``.
        x: the inputs, and the state before the text.
        chunk_size: the most positions that are computed at once. It changes time, not values.
    """
    expect_params(params)
    inputs, state = expect_with_state(x)
    if not isinstance(inputs, Inputs):
        raise TypeError(
            "x must be WithState(Inputs(q, k, v, beta, log_decay), state): "
            f"got {type(inputs).__name__}; pass gated_delta_rule.Inputs(*x)"
        )
    expect_inputs(
        {**inputs._asdict(), "state": state},
        "q: B T H K, k: B T H K, v: B T H Kv, beta: B T H, log_decay: B T H, state: B H K Kv",
        *(inputs.q, "B T H K", "q"),
    )

    q, k, v = (split(part, chunk_size) for part in inputs[:3])  # (…, C, K or Kv)
    beta, log_decay = (split(part[..., None], chunk_size) for part in inputs[3:])  # (…, C, 1)
    left = decays(log_decay)
    from_start, within, before, to_end, over_all = _parts(left)
    inverse = _inverse(beta * before * (k @ k.mT))
    w = inverse @ (beta * from_start * k)
    u = inverse @ (beta * v)  # W·S is subtracted once S is known
    states = np.empty((len(q) + 1, *state.shape), state.dtype)
    states[0] = state
    for i in range(len(q)):
        u[i] -= w[i] @ states[i]
        states[i + 1] = over_all[i] * states[i] + (to_end[i] * k[i]).mT @ u[i]
    y = from_start * (q @ states[:-1]) + (within * (q @ k.mT)) @ u
    T = inputs.q.shape[1]
    residuals = Residuals(q, k, v, beta, left, inverse, w, u, states[:-1], T)
    return WithState(join(y, T), states[-1]), residuals


def vjp(residuals: Residuals, g: WithState) -> tuple[Tree, WithState]:
    """Return ``({}, WithState(Inputs(...), d_state))`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    q, k, v, beta, left, inverse, w, u, states, T = residuals
    n, B, H, K, Kv = states.shape
    expect_cotangent(g.x, (B, T, H, Kv), q.dtype)
    expect_cotangent(g.state, (B, H, K, Kv), q.dtype)
    from_start, within, before, to_end, over_all = _parts(left)
    d_y = split(g.x, q.shape[-2])  # (…, C, Kv)
    scores, overlaps = q @ k.mT, k @ k.mT  # (…, C, C)

    d_u = (within * scores).mT @ d_y  # as far as the chunk's own positions read
    d_states = np.empty((n + 1, B, H, K, Kv), q.dtype)
    d_states[:-1] = q.mT @ (from_start * d_y)
    d_states[-1] = g.state
    for i in reversed(range(n)):
        d_u[i] += (to_end[i] * k[i]) @ d_states[i + 1]
        d_states[i] += over_all[i] * d_states[i + 1] - w[i].mT @ d_u[i]
    d_after = d_states[1:]

    e = inverse.mT @ d_u
    d_weights, d_system = d_y @ u.mT, e @ u.mT  # (…, C, C)
    d_read, d_looked_up = d_y @ states.mT, e @ states.mT  # (…, C, K)
    d_written = u @ d_after.mT  # (…, C, K)
    d_v = beta * e
    d_q = from_start * d_read + (within * d_weights) @ k
    f = -from_start * d_looked_up - (before * d_system) @ k
    d_k = beta * f + (within * d_weights).mT @ q
    d_k += to_end * d_written - (before * d_system).mT @ (beta * k)
    d_beta = row_dot(e, v) + row_dot(f, k)

    d_left = np.empty_like(left)
    d_left[..., 1:] = d_weights * scores - beta * d_system * overlaps
    d_left[..., :1] = row_dot(d_read, q) - beta * row_dot(d_looked_up, k)
    d_left[..., -1:, 1:] += row_dot(k, d_written).mT
    d_left[..., -1, 0] += (states * d_after).sum(axis=(-2, -1))
    d_log_decay = decays_vjp(left, d_left)

    of_vectors = [join(part, T) for part in (d_q, d_k, d_v)]
    of_numbers = [join(part, T)[..., 0] for part in (d_beta, d_log_decay)]
    return {}, WithState(Inputs(*of_vectors, *of_numbers), d_states[0])


def jvp(residuals: Residuals, t: tuple[Tree, WithState]) -> WithState:
    """Return ``WithState(t_y, t_state)`` for ``({}, WithState(Inputs(...), t_state))``."""
    expect_residuals(residuals, Residuals)
    q, k, v, beta, left, inverse, w, u, states, T = residuals
    n, B, H, K, Kv = states.shape
    of_keys, of_numbers = (B, T, H, K), (B, T, H)
    of_inputs = Inputs._make([of_keys, of_keys, (B, T, H, Kv), of_numbers, of_numbers])
    of_x = WithState._make([of_inputs, (B, H, K, Kv)])
    _, (t_inputs, t_state) = expect_tangent(t, ({}, of_x), q.dtype)
    C = q.shape[-2]
    t_q, t_k, t_v = (split(part, C) for part in t_inputs[:3])  # (…, C, K or Kv)
    t_beta, t_log_decay = (split(part[..., None], C) for part in t_inputs[3:])  # (…, C, 1)
    t_left = decays_jvp(left, t_log_decay)
    from_start, within, before, to_end, over_all = _parts(left)
    t_from_start, t_within, t_before, t_to_end, t_over_all = _parts(t_left)
    scores, overlaps = q @ k.mT, k @ k.mT  # (…, C, C)
    t_scores, t_overlaps = t_q @ k.mT + q @ t_k.mT, t_k @ k.mT + k @ t_k.mT
    of_state = k @ states  # (…, C, Kv)

    bracket = v - from_start * of_state - (before * overlaps) @ u
    t_bracket = t_v - t_from_start * of_state - from_start * (t_k @ states)
    t_bracket -= (t_before * overlaps + before * t_overlaps) @ u
    t_u = inverse @ (t_beta * bracket + beta * t_bracket)  # W·t_S is subtracted once it is known
    t_kept = t_to_end * k + to_end * t_k
    t_states = np.empty((n + 1, B, H, K, Kv), q.dtype)
    t_states[0] = t_state
    for i in range(n):
        t_u[i] -= w[i] @ t_states[i]
        t_written = t_kept[i].mT @ u[i] + (to_end[i] * k[i]).mT @ t_u[i]
        t_states[i + 1] = t_over_all[i] * states[i] + over_all[i] * t_states[i] + t_written
    t_y = t_from_start * (q @ states) + from_start * (t_q @ states + q @ t_states[:-1])
    t_y += (t_within * scores + within * t_scores) @ u + (within * scores) @ t_u
    return WithState(join(t_y, T), t_states[-1])


def _parts(left: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Return the parts l, M, N, m and L_C0 of L (..., C, 1+C), the last two as (..., C or 1, 1)."""
    within = left[..., 1:]
    before = within * np.tri(left.shape[-2], k=-1, dtype=left.dtype)
    return left[..., :1], within, before, left[..., -1:, 1:].mT, left[..., -1:, :1]


def _inverse(lower: Array) -> Array:
    """Return (I + N)⁻¹ for N (..., C, C) strictly below the diagonal, by forward substitution.

    Row t of (I + N)·R = I says: row t of R is that of I, minus Nₜₛ times row s for each s < t.
    """
    C = lower.shape[-1]
    inverse = np.zeros_like(lower)
    inverse[..., range(C), range(C)] = 1.0
    for t in range(1, C):
        inverse[..., t : t + 1, :t] = -(lower[..., t : t + 1, :t] @ inverse[..., :t, :t])
    return inverse
