"""Unembedding and cross-entropy in one: the logits of all tokens never exist together.

The fused linear cross-entropy of Liger Kernel (Hsu et al. 2024).

Forward. In chunks of rows, for each row x (D) with target t:

    z = W·x      z ← z − max z      loss = log Σᵥ exp(zᵥ) − z_t

and the mean over the N targets that are not ``ignore_index``; the rows of the others are left out.

``label_smoothing`` ε and ``z_loss`` ζ are those of `cross_entropy`. A ``soft_cap`` c puts
c·tanh(z/c) in place of the logits z, as in `unembedding`.

VJP. With p = softmax(z) and a scalar cotangent g, as in `cross_entropy` and `unembedding`:

    d_z = g·(p − onehot(t))/N      d_x = d_z·W      d_W = d_zᵀ·x, summed over the chunks

With the settings, d_z = g·((1 + 2·ζ·log Σ exp z)·p − (1 − ε)·onehot(t) − ε/V)/N, and times
1 − tanh² behind a cap.

Since the loss is a scalar, both are g times the gradient for g = 1. The forward computes that
gradient while it has a chunk of logits, and the residuals hold d_W and d_x instead of N·V numbers.
A vjp that recomputes the logits takes four products of N·V·D instead of three, a third more time at
V = 50257. ``recompute`` asks for that: the forward then takes only the one product that the loss
needs, for evaluation, which needs no gradient.

JVP. t_y = Σ d_W·t_W + Σ d_x·t_x, with the gradient for g = 1.

Shapes: ``weight`` (V, D), x (..., D), targets (...), y scalar. The loss is in nats.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Scalar,
    Tree,
    expect_bool,
    expect_cotangent,
    expect_inputs,
    expect_int,
    expect_number,
    expect_residuals,
    expect_sizes,
    expect_tangent,
    expect_targets,
)
from ..numerics import rows
from ..prng import normal

__all__ = ["Residuals", "forward", "init", "input_vjp", "jvp", "vjp"]


class Settings(NamedTuple):
    """What changes the loss."""

    label_smoothing: float
    z_loss: float
    soft_cap: float | None


class Residuals(NamedTuple):
    """What `vjp` needs, for the N' rows that are kept."""

    d_weight: Array | None  # (V, D) the gradient for g = 1, if it was made
    d_x: Array | None  # (N', D) likewise
    weight: Array  # (V, D)
    x: Array  # (N', D)
    target: Array  # (N',)
    kept: Array  # (N,) booleans: which rows these are
    shape: tuple[int, ...]  # of the whole x
    settings: Settings
    chunk_size: int


_LOGITS = 2**20  # the most in a chunk of more than 256 rows
_BLOCK = 2048  # rows of d_W that are added to at a time


def init(key: Key | None, *, vocab_size: int, d_model: int, dtype: Any = np.float32) -> Tree:
    """Draw ``weight`` (V, D) from N(0, 0.02²), so that the first loss is near ln V."""
    shape = expect_sizes(vocab_size=vocab_size, d_model=d_model)
    return {"weight": normal(key, shape, scale=0.02, dtype=dtype)}


def forward(
    params: Tree,
    x: Array,
    *,
    targets: Array,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
    chunk_size: int | None = None,
    recompute: bool = False,
    frozen: bool = False,
) -> tuple[Scalar, Residuals]:
    """Return the mean of −log softmax(x @ weight.T)[target] over the kept targets, in nats.

    Args:
        params: ``weight``.
        x: (..., D).
        targets: (...) integers in ``[0, V)``, or ``ignore_index``.
        ignore_index: the target that does not count.
        label_smoothing: the share of each target that is spread evenly over all V.
        z_loss: the weight of the mean square of log Σ exp(logits).
        soft_cap: the bound of the logits.
        chunk_size: the rows of a chunk. Default: as many as have a million logits, at least 256.
            With half of that, products with a large matrix take a tenth longer; with twice as
            many, about as long.
        recompute: leave the gradient to the vjp, which then recomputes the logits.
        frozen: compute no gradient of the weight, for `input_vjp`.

    Raises:
        TypeError: for targets that are not integers.
        ValueError: for targets of another shape, or outside ``[0, V)``; for a label_smoothing
            outside ``[0, 1]``, a z_loss below zero, or a cap that is not positive.
    """
    expect_inputs(params, "weight: V D", x, "... D")
    settings = Settings(
        expect_number("label_smoothing", label_smoothing, low=0.0, high=1.0),
        expect_number("z_loss", z_loss, low=0.0),
        None if soft_cap is None else expect_number("soft_cap", soft_cap, low=1e-30),
    )
    weight = params["weight"]
    ignore_index = expect_targets(targets, x.shape[:-1], len(weight), ignore_index)
    recompute, frozen = expect_bool("recompute", recompute), expect_bool("frozen", frozen)
    if chunk_size is None:
        chunk_size = max(256, _LOGITS // (len(weight) + 1))
    chunk_size = expect_int("chunk_size", chunk_size)

    target = targets.reshape(-1)  # (N,)
    kept = target != ignore_index
    inputs = weight, rows(x)[kept], target[kept]
    with_x, with_weight = not recompute, not (recompute or frozen)
    loss, d_weight, d_x = _in_chunks(*inputs, settings, chunk_size, with_x, with_weight)
    return loss, Residuals(d_weight, d_x, *inputs, kept, x.shape, settings, chunk_size)


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, Array]:
    """Return ``({"weight"}, d_x)`` for the scalar cotangent g."""
    expect_residuals(residuals, Residuals)
    d_weight, d_x, weight, x, target, _, _, settings, chunk_size = residuals
    if d_weight is None:
        _, d_weight, d_x = _in_chunks(weight, x, target, settings, chunk_size, True, True)
    return {"weight": d_weight * g}, input_vjp(residuals._replace(d_x=d_x), g)


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Scalar:
    """Return t_y, a scalar, for the tangents ``({"weight"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    d_weight, d_x, weight, x, target, kept, shape, settings, chunk_size = residuals
    t_params, t_x = expect_tangent(t, ({"weight": weight.shape}, shape), weight.dtype)
    if d_weight is None or d_x is None:
        _, d_weight, d_x = _in_chunks(weight, x, target, settings, chunk_size, True, True)
    return np.vdot(d_weight, t_params["weight"]) + np.vdot(d_x, rows(t_x)[kept])


def input_vjp(residuals: Residuals, g: Any) -> Array:
    """Return d_x alone, for a weight that is not trained."""
    expect_residuals(residuals, Residuals)
    _, d_x, weight, x, target, kept, shape, settings, chunk_size = residuals
    expect_cotangent(g, (), weight.dtype)
    if d_x is None:
        _, _, d_x = _in_chunks(weight, x, target, settings, chunk_size, True, False)
    out = np.zeros(shape, weight.dtype)
    rows(out)[kept] = d_x * g
    return out


def _in_chunks(
    weight: Array,
    x: Array,
    target: Array,
    settings: Settings,
    chunk_size: int,
    with_x: bool,
    with_weight: bool,
) -> tuple[Scalar, Any, Any]:
    """Return the mean loss of the rows x (N', D), and the gradients of weight and x, or None."""
    label_smoothing, z_loss, soft_cap = settings
    n_rows = max(len(x), 1)
    losses = np.empty(len(x), x.dtype)
    scratch = np.empty((min(chunk_size, len(x)), len(weight)), x.dtype)
    d_x = np.empty(x.shape, x.dtype) if with_x else None
    d_weight = (np.empty if len(x) else np.zeros)(weight.shape, x.dtype) if with_weight else None
    for first in range(0, len(x), chunk_size):
        part = slice(first, first + chunk_size)
        logits = np.matmul(x[part], weight.T, out=scratch[: len(x) - first])  # (C, V)
        if soft_cap is not None:
            np.tanh(np.divide(logits, soft_cap, out=logits), out=logits)
            slope = 1.0 - logits * logits
            logits *= soft_cap
        top = logits.max(axis=-1, keepdims=True)
        logits -= top
        at_target = np.arange(len(logits)), target[part]
        losses[part] = -(1.0 - label_smoothing) * logits[at_target]
        if label_smoothing:
            losses[part] -= label_smoothing * logits.mean(axis=-1)
        np.exp(logits, out=logits)
        total = logits.sum(axis=-1, keepdims=True)  # (C, 1)
        log_total = np.log(total)
        losses[part] += log_total[:, 0]
        z = top + log_total  # (C, 1)
        if z_loss:
            losses[part] += z_loss * np.square(z[:, 0])
        if d_x is None:
            continue
        d_logits = np.divide(logits, total * n_rows, out=logits)
        if z_loss:
            d_logits *= 1.0 + 2.0 * z_loss * z
        d_logits[at_target] -= (1.0 - label_smoothing) / n_rows
        if label_smoothing:
            d_logits -= label_smoothing / (n_rows * len(weight))
        if soft_cap is not None:
            d_logits *= slope
        np.matmul(d_logits, weight, out=d_x[part])
        if d_weight is None:
            continue
        if first == 0:
            np.matmul(d_logits.T, x[part], out=d_weight)
            continue
        for start in range(0, len(weight), _BLOCK):
            some = slice(start, start + _BLOCK)
            d_weight[some] += d_logits[:, some].T @ x[part]
    return losses.sum() / n_rows, d_weight, d_x
