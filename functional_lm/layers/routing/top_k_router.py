"""The gate of a mixture of experts: how much each chosen expert counts, and what keeps it fair.

Forward. For each row x (E) of logits, one for each expert, `choose` takes the k largest; of equal
ones, the lower number wins. The chosen are constants to the derivative. With p = softmax(x) over
all experts and z = log Σₑ exp(xₑ), the weights of the chosen are

    w = p[chosen]/Σ p[chosen] = softmax(x[chosen])

where both forms agree, since the sum over all experts cancels; the second one never divides by a
sum that underflows. With N rows, fₑ the share of the N·k choices that fell on e, and Pₑ the mean of
pₑ over the rows, the auxiliary loss is

    a = balance_loss·E·Σₑ fₑ·Pₑ + z_loss·mean(z²)

The first term is 1 where all experts are used alike, whatever k is. It is eq. 4 of Fedus et al.
2021 (Switch Transformer) at k = 1, and eq. 12 to 14 of Dai et al. 2024 (DeepSeekMoE) above; code
for Mixtral lets fₑ add up to k, which multiplies it by k. The second is eq. 5 of Zoph et al. 2022
(ST-MoE). Zero rows have no loss.

VJP. f counts, so it has no derivative. With u the cotangent of w and v that of a:

    ∂w/∂x[chosen]: as of a softmax      ⇒  d_x[chosen] = w·(u − Σ u·w)
    ∂Pₑ/∂xₙ: that of p, over N           ⇒  d_x += v·balance_loss·E/N·p·(f − Σₑ fₑ·pₑ)
    ∂z/∂xₑ = pₑ                          ⇒  d_x += v·z_loss·2/N·z·p

JVP. With the tangents t_p = p·(t_x − t_z) and t_z = Σₑ pₑ·t_xₑ:

    t_w = w·(t_x[chosen] − Σ w·t_x[chosen])
    t_a = (balance_loss·E·Σₑ fₑ·Σₙ t_p + z_loss·2·Σₙ z·t_z)/N

Shapes: x (..., E), experts and weights (..., k), the auxiliary loss a scalar.
"""

from typing import NamedTuple

import numpy as np

from ...contract import (
    Array,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_int,
    expect_number,
    expect_residuals,
    expect_tangent,
    expect_tokens,
    init_nothing,
)
from ...numerics import row_dot, rows, softmax, softmax_vjp

__all__ = ["Gates", "Residuals", "choose", "forward", "init", "jvp", "vjp"]


class Gates(NamedTuple):
    """What the gate makes of the logits."""

    weights: Array  # (..., k) of the chosen experts; their sum is 1
    auxiliary: Array  # ()


class Residuals(NamedTuple):
    """What `vjp` needs."""

    probs: Array  # (N, E) over all experts
    log_total: Array  # (N, 1) z
    shares: Array  # (E,) f
    weights: Array  # (N, k)
    experts: Array  # (..., k)
    losses: tuple[float, float]  # the weights of the two losses


init = init_nothing


def forward(
    params: Tree, x: Array, *, experts: Array, balance_loss: float = 0.0, z_loss: float = 0.0
) -> tuple[Gates, Residuals]:
    """Return the weights of the chosen experts, and the auxiliary loss.

    Args:
        params: ``{}``.
        x: logits (..., E).
        experts: (..., k) the chosen ones of each row, distinct integers from `choose`.
        balance_loss: the weight of the load-balancing loss.
        z_loss: the weight of the mean of z².

    Raises:
        TypeError: for experts that are not integers.
        ValueError: for experts of another shape, outside ``[0, E)``, or twice in a row; for a
            weight below zero.
    """
    expect_inputs(params, "", x, "... E")
    E = x.shape[-1]
    expect_tokens("experts", experts, E, fix="pass what choose returns for x")
    if experts.ndim != x.ndim or experts.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"experts must have shape (..., k) for x {x.shape}: got {experts.shape}; "
            "pass what choose returns for x"
        )
    in_order = np.sort(experts, axis=-1)
    if (in_order[..., 1:] == in_order[..., :-1]).any():
        raise ValueError(
            "experts must differ from each other in each row: got one that is chosen twice; "
            "pass what choose returns for x"
        )
    balance_loss = expect_number("balance_loss", balance_loss, low=0.0)
    z_loss = expect_number("z_loss", z_loss, low=0.0)

    logits, chosen = rows(x), rows(experts)  # (N, E), (N, k)
    n_rows = max(len(logits), 1)
    top = logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(logits - top)
    total = exponentials.sum(axis=-1, keepdims=True)  # (N, 1)
    probs, log_total = exponentials / total, top + np.log(total)
    weights = softmax(np.take_along_axis(logits, chosen))  # (N, k)
    shares = (np.bincount(chosen.ravel(), minlength=E) / max(chosen.size, 1)).astype(x.dtype)
    balance = E * (probs.sum(axis=0) @ shares) / n_rows
    size = np.square(log_total).sum() / n_rows
    gates = Gates(weights.reshape(experts.shape).copy(), balance_loss * balance + z_loss * size)
    return gates, Residuals(probs, log_total, shares, weights, experts, (balance_loss, z_loss))


def vjp(residuals: Residuals, g: Gates) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the cotangents of the weights and of the auxiliary loss."""
    expect_residuals(residuals, Residuals)
    probs, log_total, shares, weights, experts, (balance_loss, z_loss) = residuals
    d_weights, d_auxiliary = g
    expect_cotangent(d_weights, experts.shape, probs.dtype)
    N, E = probs.shape
    scale = 1.0 / max(N, 1)
    uneven = shares - (probs @ shares)[:, None]  # (N, E)
    slope = balance_loss * E * scale * uneven + 2.0 * z_loss * scale * log_total
    d_logits = d_auxiliary * (probs * slope)  # (N, E)
    at_chosen = np.arange(N)[:, None], rows(experts)
    d_logits[at_chosen] += softmax_vjp(weights, rows(d_weights))
    return {}, d_logits.reshape(*experts.shape[:-1], E)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Gates:
    """Return the tangents of the weights and of the auxiliary loss for ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    probs, log_total, shares, weights, experts, (balance_loss, z_loss) = residuals
    N, E = probs.shape
    _, t_x = expect_tangent(t, ({}, (*experts.shape[:-1], E)), probs.dtype)
    t_logits = rows(t_x)
    at_chosen = np.take_along_axis(t_logits, rows(experts))
    t_weights = softmax_vjp(weights, at_chosen)  # a softmax has a symmetric Jacobian
    t_log_total = row_dot(probs, t_logits)  # (N, 1)
    t_probs = probs * (t_logits - t_log_total)  # (N, E)
    t_balance = E * (t_probs.sum(axis=0) @ shares)
    t_size = 2.0 * (log_total * t_log_total).sum()
    t_auxiliary = (balance_loss * t_balance + z_loss * t_size) / max(N, 1)
    return Gates(t_weights.reshape(experts.shape), t_auxiliary)


def choose(x: Array, *, k: int) -> Array:
    """Return the numbers (..., k) of the k largest logits of each row, the largest first.

    Of equal logits, the lower number comes first.

    Raises:
        ValueError: for a k outside ``[1, E]``.
    """
    k = expect_int("k", k, maximum=x.shape[-1])
    return np.argsort(-x, axis=-1, kind="stable")[..., :k]
