"""What ends in one number."""

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.losses import cross_entropy
from functional_lm.numerics import rows, sigmoid, softmax

from .bug import Layer, Pair, draw, plant

plant(
    cross_entropy,
    {},
    draw(509, 7, 11),
    """
    ignored targets get the gradient of the normaliser
    x: mask leak
    - d_logits[at_target] -= (1.0 - label_smoothing) / n_kept
    + d_logits[np.flatnonzero(kept), target[kept]] -= 1.0 / n_kept
    - d_logits[~kept] = 0.0
    """,
    targets=np.array([3, -100, 10, 0, -100, 7, 3]),
)

plant(
    cross_entropy,
    {},
    draw(512, 7, 11),
    """
    the gradient of the z-loss lacks the probabilities
    x: missing factor
    - d_logits *= 1.0 + 2.0 * z_loss * z
    + d_logits += 2.0 * z_loss * z / n_kept

    the smoothed share is not taken from the target
    x: missing term
    - d_logits[at_target] -= (1.0 - label_smoothing) / n_kept
    + d_logits[at_target] -= 1.0 / n_kept
    """,
    targets=np.array([3, 2, 10, 0, 1, 7, 3]),
    label_smoothing=0.3,
    z_loss=0.2,
)


class mse(Layer):
    """The mean of (x − targets)²."""

    def forward(params, x, *, targets):
        difference = x - targets.astype(x.dtype)
        return (difference * difference).mean(), difference

    def vjp(difference, g):
        return {}, g * (2.0 / difference.size) * difference

    def reference(params, x, *, targets):
        return jnp.mean(jnp.square(x - jnp.asarray(targets, x.dtype)))

    inputs = ({}, draw(510, 3, 5), {"targets": draw(511, 3, 5)})
    bugs = """
    the loss is taken to be the last, so that g would be one
    x: g ignored
    - return {}, g * (2.0 / difference.size) * difference
    + return {}, 2.0 * difference / difference.size

    the two of the square is forgotten
    x: constant factor
    - return {}, g * (2.0 / difference.size) * difference
    + return {}, g * difference / difference.size

    targets less predictions
    x: sign
    - difference = x - targets.astype(x.dtype)
    + difference = targets.astype(x.dtype) - x
    """


def log_softmax(x):
    """Return x less the logarithm of the sum of the exponentials of its row."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class distillation(Layer):
    """T²·KL(teacher ‖ student) of the softmax at temperature T, per row (Hinton et al. 2015)."""

    def forward(params, x, *, teacher, temperature):
        student, teacher = x / temperature, teacher / temperature
        p, q = softmax(student), softmax(teacher)
        log_p, log_q = log_softmax(student), log_softmax(teacher)
        loss = (q * (log_q - log_p)).sum() * (temperature * temperature / len(rows(x)))
        return loss, (p, q, temperature)

    def vjp(residuals, g):
        p, q, temperature = residuals
        return {}, g * (temperature / len(rows(p))) * (p - q)

    def reference(params, x, *, teacher, temperature):
        log_p = jax.nn.log_softmax(x / temperature)
        log_q = jax.nn.log_softmax(jnp.asarray(teacher, x.dtype) / temperature)
        divergence = (jnp.exp(log_q) * (log_q - log_p)).sum(axis=-1)
        return temperature**2 * divergence.mean()

    inputs = ({}, draw(1501, 5, 7), {"teacher": draw(1502, 5, 7), "temperature": 2.5})
    bugs = """
    the gradient that the forward made is returned as it is
    x: g ignored
    - return loss, (p, q, temperature)
    + return loss, temperature / len(p) * (p - q)
    - p, q, temperature = residuals
    - return {}, g * (temperature / len(rows(p))) * (p - q)
    + return {}, residuals.copy()

    teacher less student
    x: sign
    - return {}, g * (temperature / len(rows(p))) * (p - q)
    + return {}, g * (temperature / len(rows(p))) * (q - p)

    T² and not the inner 1/T
    x: constant factor
    - return {}, g * (temperature / len(rows(p))) * (p - q)
    + return {}, g * (temperature * temperature / len(rows(p))) * (p - q)
    """


class huber(Layer):
    """The mean of half the square of the error, and linear beyond delta."""

    def forward(params, x, *, targets, delta):
        error = x - targets
        size = np.abs(error)
        losses = np.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
        return losses.mean(), (error, delta)

    def vjp(residuals, g):
        error, delta = residuals
        return {}, g / error.size * np.clip(error, -delta, delta)

    def reference(params, x, *, targets, delta):
        error = jnp.abs(x - jnp.asarray(targets, x.dtype))
        near = jnp.minimum(error, delta)
        return jnp.mean(0.5 * near * near + delta * (error - near))

    inputs = ({}, draw(1504, 3, 5), {"targets": draw(1503, 3, 5), "delta": 0.9})
    bugs = """
    divided by the batch and not by all entries
    x: constant factor
    - return {}, g / error.size * np.clip(error, -delta, delta)
    + return {}, g / len(error) * np.clip(error, -delta, delta)

    the error is clipped after g is multiplied in
    x: not linear in g
    - return {}, g / error.size * np.clip(error, -delta, delta)
    + return {}, np.clip(g * error, -delta, delta) / error.size
    """


class binary_cross_entropy(Layer):
    """The mean of −t·log σ(x) − (1 − t)·log σ(−x)."""

    def forward(params, x, *, targets):
        losses = np.maximum(x, 0.0) - x * targets + np.log1p(np.exp(-np.abs(x)))
        return losses.mean(), (sigmoid(x), targets)

    def vjp(residuals, g):
        probs, targets = residuals
        return {}, g / probs.size * (probs - targets)

    def reference(params, x, *, targets):
        t = jnp.asarray(targets, x.dtype)
        return -jnp.mean(t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))

    inputs = (
        {},
        draw(1505, 5, 7, scale=1000.0),
        {"targets": np.random.default_rng(1506).random((5, 7))},
    )
    bugs = """
    −t/p + (1 − t)/(1 − p), times p·(1 − p)
    x: not finite
    - return {}, g / probs.size * (probs - targets)
    + d_probs = (1.0 - targets) / (1.0 - probs) - targets / probs
    + return {}, g / probs.size * d_probs * probs * (1.0 - probs)
    """


class contrastive(Layer):
    """The i-th a belongs to the i-th b: cross-entropy over rows and columns (CLIP)."""

    def forward(params, x):
        a, b = x  # (N, D), (N, D)
        products = a @ b.T
        logits = params["scale"] * products
        by_row, by_column = log_softmax(logits), log_softmax(logits.T).T
        loss = -0.5 * (np.diagonal(by_row) + np.diagonal(by_column)).mean()
        return loss, (a, b, products, np.exp(by_row), np.exp(by_column), params["scale"])

    def vjp(residuals, g):
        a, b, products, by_row, by_column, scale = residuals
        N = len(a)
        d_logits = g / N * (0.5 * by_row + 0.5 * by_column - np.eye(N, dtype=a.dtype))
        d_products = scale * d_logits
        return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products.T @ a)

    def reference(params, x):
        logits = params["scale"] * jnp.einsum("id,jd->ij", x.a, x.b)
        right = jnp.trace(jax.nn.log_softmax(logits, axis=1) + jax.nn.log_softmax(logits, axis=0))
        return -right / (2 * len(logits))

    inputs = ({"scale": np.array(1.3)}, Pair(draw(1507, 7, 5), draw(1508, 7, 5)), {})
    bugs = """
    only the half over the rows
    params.scale x.a x.b: missing term
    - d_logits = g / N * (0.5 * by_row + 0.5 * by_column - np.eye(N, dtype=a.dtype))
    + d_logits = g / N * 0.5 * (by_row - np.eye(N, dtype=a.dtype))

    b gets the same side of the logits as a
    x.b: jacobian not transposed
    - return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products.T @ a)
    + return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products @ a)
    """
