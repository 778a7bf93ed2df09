"""Cross-entropy of logits against integer targets, the mean over the kept ones.

Forward, for each row x (V) of logits with target t, in log-sum-exp form after subtracting the
row's maximum:

    x ← x − max x      loss = log Σᵥ exp(xᵥ) − x_t

and the mean over the N targets that are not ``ignore_index``. Subtracting the maximum first keeps
the loss of a confident prediction accurate: without it, that loss is the small difference of two
numbers as large as the logits.

With ``label_smoothing`` ε the target is (1 − ε)·onehot(t) + ε/V, as in PyTorch and in optax's
`smooth_labels` (Szegedy et al. 2016, section 7), and x_t becomes (1 − ε)·x_t + ε·mean(x). With
``z_loss`` ζ each row adds ζ·z², where z = log Σᵥ exp(xᵥ) before the maximum was subtracted
(Chowdhery et al. 2022, PaLM, section 5).

VJP. ∂ log Σ exp(x)/∂xᵥ = softmax(x)ᵥ = pᵥ, and ∂x_t/∂xᵥ = [v = t]. With a scalar cotangent g:

    d_x = g·(p − onehot(t))/N       zero for ignored targets

and with both settings d_x = g·((1 + 2·ζ·z)·p − (1 − ε)·onehot(t) − ε/V)/N, since ∂z/∂xᵥ = pᵥ.
Nothing kept gives loss 0 and zero gradient. Residuals hold d_x for g = 1.

JVP. t_y = Σ d_x·t_x, with d_x for g = 1.

Shapes: x (..., V), targets (...), y scalar. The loss is in nats.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Scalar,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_number,
    expect_residuals,
    expect_tangent,
    expect_targets,
    init_nothing,
)
from ..numerics import rows

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    d_logits: Array  # (..., V) the gradient for g = 1


init = init_nothing


def forward(
    params: Tree,
    x: Array,
    *,
    targets: Array,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Scalar, Residuals]:
    """Return the mean of −log softmax(x)[target] over the kept targets, in nats.

    Args:
        params: ``{}``.
        x: logits (..., V).
        targets: (...) integers in ``[0, V)``, or ``ignore_index``.
        ignore_index: the target that does not count.
        label_smoothing: the share of each target that is spread evenly over all V.
        z_loss: the weight of the mean square of log Σ exp(x).

    Raises:
        TypeError: for targets that are not integers.
        ValueError: for targets of another shape, or outside ``[0, V)``; for a label_smoothing
            outside ``[0, 1]`` or a z_loss below zero.
    """
    expect_inputs(params, "", x, "... V")
    ignore_index = expect_targets(targets, x.shape[:-1], x.shape[-1], ignore_index)
    label_smoothing = expect_number("label_smoothing", label_smoothing, low=0.0, high=1.0)
    z_loss = expect_number("z_loss", z_loss, low=0.0)
    target = targets.ravel()  # (N,)
    kept = target != ignore_index
    n_kept = max(int(kept.sum()), 1)
    at_target = np.arange(len(kept)), np.where(kept, target, 0)

    logits = rows(x)  # (N, V)
    top = logits.max(axis=-1, keepdims=True)
    logits = logits - top
    exponentials = np.exp(logits)
    total = exponentials.sum(axis=-1, keepdims=True)  # (N, 1)
    log_total = np.log(total)
    losses = log_total[:, 0] - (1.0 - label_smoothing) * logits[at_target]  # (N,)
    d_logits = exponentials / (total * n_kept)
    if z_loss:
        z = top + log_total  # (N, 1)
        losses += z_loss * np.square(z[:, 0])
        d_logits *= 1.0 + 2.0 * z_loss * z
    d_logits[at_target] -= (1.0 - label_smoothing) / n_kept
    if label_smoothing:
        losses -= label_smoothing * logits.mean(axis=-1)
        d_logits -= label_smoothing / (n_kept * x.shape[-1])
    loss = losses[kept].sum() / n_kept
    d_logits[~kept] = 0.0
    return loss, Residuals(d_logits.reshape(x.shape))


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the scalar cotangent g."""
    expect_residuals(residuals, Residuals)
    (d_logits,) = residuals
    expect_cotangent(g, (), d_logits.dtype)
    return {}, d_logits * g


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Scalar:
    """Return t_y, a scalar, for the tangents ``({}, t_x)``."""
    expect_residuals(residuals, Residuals)
    (d_logits,) = residuals
    _, t_x = expect_tangent(t, ({}, d_logits.shape), d_logits.dtype)
    return np.vdot(d_logits, t_x)
