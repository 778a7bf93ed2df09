"""Cross-entropy of logits against integer targets, the mean over the kept ones.

Forward, for each row x (V) of logits with target t, in log-sum-exp form after subtracting the
row's maximum:

    x ← x − max x      loss = log Σᵥ exp(xᵥ) − x_t

and the mean over the N targets that are not ``ignore_index``. Subtracting the maximum first keeps
the loss of a confident prediction accurate: without it, that loss is the small difference of two
numbers as large as the logits.

VJP. ∂ log Σ exp(x)/∂xᵥ = softmax(x)ᵥ = pᵥ, and ∂x_t/∂xᵥ = [v = t]. With a scalar cotangent g:

    d_x = g·(p − onehot(t))/N       zero for ignored targets

Nothing kept gives loss 0 and zero gradient. Residuals hold (p − onehot(t))/N.

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
    expect_residuals,
    expect_targets,
    init_nothing,
)
from ..numerics import rows

__all__ = ["Residuals", "forward", "init", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    d_logits: Array  # (..., V) the gradient for g = 1


init = init_nothing


def forward(
    params: Tree, x: Array, *, targets: Array, ignore_index: int = -100
) -> tuple[Scalar, Residuals]:
    """Return the mean of −log softmax(x)[target] over the kept targets, in nats.

    Args:
        params: ``{}``.
        x: logits (..., V).
        targets: (...) integers in ``[0, V)``, or ``ignore_index``.
        ignore_index: the target that does not count.

    Raises:
        TypeError: for targets that are not integers.
        ValueError: for targets of another shape, or outside ``[0, V)``.
    """
    expect_inputs(params, "", x, "... V")
    ignore_index = expect_targets(targets, x.shape[:-1], x.shape[-1], ignore_index)
    target = targets.ravel()  # (N,)
    kept = target != ignore_index
    n_kept = max(int(kept.sum()), 1)
    at_target = np.arange(len(kept)), np.where(kept, target, 0)

    logits = rows(x)  # (N, V)
    logits = logits - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(logits)
    total = exponentials.sum(axis=-1, keepdims=True)  # (N, 1)
    losses = np.log(total[:, 0]) - logits[at_target]  # (N,)
    loss = losses[kept].sum() / n_kept

    d_logits = exponentials / (total * n_kept)
    d_logits[at_target] -= 1.0 / n_kept
    d_logits[~kept] = 0.0
    return loss, Residuals(d_logits.reshape(x.shape))


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the scalar cotangent g."""
    expect_residuals(residuals, Residuals)
    (d_logits,) = residuals
    expect_cotangent(g, (), d_logits.dtype)
    return {}, d_logits * g
