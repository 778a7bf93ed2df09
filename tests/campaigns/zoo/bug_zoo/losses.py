"""What ends in one number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .bug import Bug, Layer, Pair, draw, plant_in, probabilities, rows, sigmoid


class cross_entropy(Layer):
    """The mean of −log softmax(x)[target] over the targets that count."""

    def forward(params, x, *, targets, ignore_index=-100):
        kept = np.flatnonzero(targets != ignore_index)
        probs = probabilities(x)
        d_x = np.zeros_like(x)
        d_x[kept] = probs[kept] / len(kept)
        d_x[kept, targets[kept]] -= 1.0 / len(kept)
        return -np.log(probs[kept, targets[kept]]).mean(), d_x

    def vjp(d_x, g):
        return {}, g * d_x

    def reference(params, x, *, targets, ignore_index=-100):
        kept = targets != ignore_index
        labels = jnp.where(kept, targets, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(x, labels)
        return jnp.sum(jnp.where(kept, losses, 0)) / jnp.maximum(kept.sum(), 1)


class mse(Layer):
    """The mean of (x − targets)²."""

    def forward(params, x, *, targets):
        difference = x - targets.astype(x.dtype)
        return (difference * difference).mean(), difference

    def vjp(difference, g):
        return {}, g * (2.0 / difference.size) * difference

    def reference(params, x, *, targets):
        return jnp.mean(jnp.square(x - jnp.asarray(targets, x.dtype)))


def log_softmax(x):
    """Return x less the logarithm of the sum of the exponentials of its row."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class distillation(Layer):
    """T²·KL(teacher ‖ student) of the softmax at temperature T, per row (Hinton et al. 2015)."""

    def forward(params, x, *, teacher, temperature):
        student, teacher = x / temperature, teacher / temperature
        p, q = probabilities(student), probabilities(teacher)
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


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)

STUDENT, TEACHER = draw(1501, 5, 7), draw(1502, 5, 7)


def keep_probs(params, x, *, targets, ignore_index=-100):
    loss, _ = cross_entropy.forward(params, x, targets=targets, ignore_index=ignore_index)
    return loss, (probabilities(x), targets, ignore_index)


@plant(
    "cross_entropy: ignored targets get the gradient of the normaliser",
    cross_entropy,
    {},
    draw(509, 7, 11),
    targets=np.array([3, -100, 10, 0, -100, 7, 3]),
    forward=keep_probs,
    leaves="x",
    cause="mask leak",
)
def ignored_targets_get_a_gradient(residuals, g):
    probs, targets, ignore_index = residuals
    kept = np.flatnonzero(targets != ignore_index)
    d_x = probs.copy()
    d_x[kept, targets[kept]] -= 1.0
    return {}, g * d_x / max(len(kept), 1)


PREDICTIONS = draw(510, 3, 5)
TARGETS = draw(511, 3, 5)
MSE = (mse, {}, PREDICTIONS)


@plant(
    "mse: the loss is taken to be the last, so that g would be one",
    *MSE,
    targets=TARGETS,
    leaves="x",
    cause="g ignored",
)
def g_would_be_one(difference, g):
    return {}, 2.0 * difference / difference.size


@plant(
    "mse: the two of the square is forgotten",
    *MSE,
    targets=TARGETS,
    leaves="x",
    cause="constant factor",
)
def two_forgotten(difference, g):
    return {}, g * difference / difference.size


@plant(
    "mse: targets less predictions",
    *MSE,
    targets=TARGETS,
    forward=lambda params, x, *, targets: (
        mse.forward({}, x, targets=targets)[0],
        targets.astype(x.dtype) - x,
    ),
    leaves="x",
    cause="sign",
)
def targets_less_predictions(error, g):
    return {}, g * (2.0 / error.size) * error


def gradient_in_the_forward(params, x, *, teacher, temperature):
    """Keep the gradient, as fused kernels do."""
    loss, residuals = distillation.forward(params, x, teacher=teacher, temperature=temperature)
    p, q, _ = residuals
    return loss, temperature / len(p) * (p - q)


DISTILLATION = (distillation, {}, STUDENT)


@plant(
    "distillation: the gradient that the forward made is returned as it is",
    *DISTILLATION,
    teacher=TEACHER,
    temperature=2.5,
    forward=gradient_in_the_forward,
    leaves="x",
    cause="g ignored",
)
def returned_as_it_is(d_x, g):
    return {}, d_x.copy()


@plant(
    "distillation: teacher less student",
    *DISTILLATION,
    teacher=TEACHER,
    temperature=2.5,
    leaves="x",
    cause="sign",
)
def teacher_less_student(residuals, g):
    p, q, temperature = residuals
    return {}, g * (temperature / len(p)) * (q - p)


@plant(
    "distillation: T² and not the inner 1/T",
    *DISTILLATION,
    teacher=TEACHER,
    temperature=2.5,
    leaves="x",
    cause="constant factor",
)
def no_inner_derivative(residuals, g):
    p, q, temperature = residuals
    return {}, g * (temperature * temperature / len(p)) * (p - q)


LABELS = draw(1503, 3, 5)
HUBER = (huber, {}, draw(1504, 3, 5))


@plant(
    "huber: divided by the batch and not by all entries",
    *HUBER,
    targets=LABELS,
    delta=0.9,
    leaves="x",
    cause="constant factor",
)
def divided_by_the_batch(residuals, g):
    error, delta = residuals
    return {}, g / len(error) * np.clip(error, -delta, delta)


@plant(
    "huber: the error is clipped after g is multiplied in",
    *HUBER,
    targets=LABELS,
    delta=0.9,
    leaves="x",
    cause="not linear in g",
)
def clipped_after_g(residuals, g):
    error, delta = residuals
    return {}, np.clip(g * error, -delta, delta) / error.size


@plant(
    "binary_cross_entropy: −t/p + (1 − t)/(1 − p), times p·(1 − p)",
    binary_cross_entropy,
    {},
    draw(1505, 5, 7, scale=1000.0),
    targets=np.random.default_rng(1506).random((5, 7)),
    leaves="x",
    cause="not finite",
)
def through_the_logarithms(residuals, g):
    p, t = residuals
    d_p = (1.0 - t) / (1.0 - p) - t / p
    return {}, g / p.size * d_p * p * (1.0 - p)


SCALE = {"scale": np.array(1.3)}
VIEWS = Pair(draw(1507, 7, 5), draw(1508, 7, 5))
CONTRASTIVE = (contrastive, SCALE, VIEWS)


@plant(
    "contrastive: only the half over the rows",
    *CONTRASTIVE,
    leaves="params.scale x.a x.b",
    cause="missing term",
)
def half_over_the_rows(residuals, g):
    a, b, products, by_row, _, scale = residuals
    N = len(a)
    d_logits = g / N * 0.5 * (by_row - np.eye(N, dtype=a.dtype))
    d_products = scale * d_logits
    return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products.T @ a)


@plant(
    "contrastive: b gets the same side of the logits as a",
    *CONTRASTIVE,
    leaves="x.b",
    cause="jacobian not transposed",
)
def same_side_of_the_logits(residuals, g):
    a, _, _, by_row, by_column, scale = residuals
    N = len(a)
    d_params, d_x = contrastive.vjp(residuals, g)
    d_logits = g / N * (0.5 * by_row + 0.5 * by_column - np.eye(N, dtype=a.dtype))
    return d_params, d_x._replace(b=(scale * d_logits) @ a)
