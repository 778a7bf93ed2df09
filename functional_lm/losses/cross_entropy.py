"""Cross-entropy of logits against integer targets, the mean over the kept ones.

Forward, for each row x (V) of logits with target t, in log-sum-exp form after subtracting the
row's maximum:

    x ← x − max x      loss = log Σᵥ exp(xᵥ) − x_t

and the mean over the N targets that are not ``ignore_index``. Subtracting the maximum first keeps
the loss of a confident prediction accurate, which would else be the small difference of two
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
    Key,
    Scalar,
    Tree,
    expect_cotangent,
    expect_dtype,
    expect_floating,
    expect_int,
    expect_params,
    expect_shape,
    expect_tokens,
)
from ..numerics import rows


class Residuals(NamedTuple):
    """What `vjp` needs."""

    d_logits: Array  # (..., V) the gradient for g = 1


def init(key: Key = (), *, dtype: Any = np.float32) -> Tree:
    """Return ``{}``: a loss has no parameters."""
    expect_dtype(dtype)
    return {}


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
        TypeError: for logits that are not float32 or float64, or targets that are not integers.
        ValueError: for shapes that do not fit, or a target outside ``[0, V)``.
    """
    expect_params(params)
    expect_floating(x=x)
    (vocab_size,) = expect_shape("x", x, "... V")
    ignore_index = expect_int("ignore_index", ignore_index, minimum=None)
    expect_tokens("targets", targets, vocab_size, ignore_index=ignore_index)
    if targets.shape != x.shape[:-1]:
        raise ValueError(
            f"targets must have the leading shape of the logits, {x.shape[:-1]}: "
            f"got {targets.shape}; pass one target for each row"
        )
    target = targets.reshape(-1)  # (N,)
    kept = np.flatnonzero(target != ignore_index)
    n_kept = max(len(kept), 1)

    logits = rows(x)  # (N, V)
    probs = logits - logits.max(axis=-1, keepdims=True)
    at_target = probs[kept, target[kept]]
    np.exp(probs, out=probs)
    total = probs.sum(axis=-1, keepdims=True)  # (N, 1)
    loss = (np.log(total[kept, 0]) - at_target).sum() / n_kept

    d_logits = np.divide(probs, total * n_kept, out=probs)
    d_logits[kept, target[kept]] -= 1.0 / n_kept
    if len(kept) < len(target):
        d_logits[target == ignore_index] = 0.0
    return loss, Residuals(d_logits.reshape(x.shape))


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, Array]:
    """Return ``({}, d_x)`` for the scalar cotangent g."""
    (d_logits,) = residuals
    expect_cotangent(g, (), d_logits.dtype)
    return {}, d_logits * g
