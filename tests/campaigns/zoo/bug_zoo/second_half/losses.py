"""Losses: signs, means, temperatures, and the g that one thinks is one."""

import numpy as np

from ..bug import Bug, draw, plant
from ..research_layers import Pair
from ..research_losses import binary_cross_entropy, contrastive, distillation, huber

BUGS: list[Bug] = []

STUDENT, TEACHER = draw(1501, 5, 7), draw(1502, 5, 7)


def gradient_in_the_forward(params, x, *, teacher, temperature):
    """Keep the gradient, as fused kernels do."""
    loss, residuals = distillation.forward(params, x, teacher=teacher, temperature=temperature)
    p, q, _ = residuals
    return loss, temperature / len(p) * (p - q)


@plant(
    BUGS,
    "distillation: the gradient that the forward made is returned as it is",
    distillation,
    {},
    STUDENT,
    teacher=TEACHER,
    temperature=2.5,
    forward=gradient_in_the_forward,
    leaves=("x",),
    cause="g ignored",
)
def returned_as_it_is(d_x, g):
    return {}, d_x.copy()


@plant(
    BUGS,
    "distillation: teacher less student",
    distillation,
    {},
    STUDENT,
    teacher=TEACHER,
    temperature=2.5,
    leaves=("x",),
    cause="sign",
)
def teacher_less_student(residuals, g):
    p, q, temperature = residuals
    return {}, g * (temperature / len(p)) * (q - p)


@plant(
    BUGS,
    "distillation: T² and not the inner 1/T",
    distillation,
    {},
    STUDENT,
    teacher=TEACHER,
    temperature=2.5,
    leaves=("x",),
    cause="constant factor",
)
def no_inner_derivative(residuals, g):
    p, q, temperature = residuals
    return {}, g * (temperature * temperature / len(p)) * (p - q)


TARGETS = draw(1503, 3, 5)


@plant(
    BUGS,
    "huber: divided by the batch and not by all entries",
    huber,
    {},
    draw(1504, 3, 5),
    targets=TARGETS,
    delta=0.9,
    leaves=("x",),
    cause="constant factor",
)
def divided_by_the_batch(residuals, g):
    error, delta = residuals
    return {}, g / len(error) * np.clip(error, -delta, delta)


@plant(
    BUGS,
    "huber: the error is clipped after g is multiplied in",
    huber,
    {},
    draw(1504, 3, 5),
    targets=TARGETS,
    delta=0.9,
    leaves=("x",),
    cause="not linear in g",
)
def clipped_after_g(residuals, g):
    error, delta = residuals
    return {}, np.clip(g * error, -delta, delta) / error.size


@plant(
    BUGS,
    "binary_cross_entropy: −t/p + (1 − t)/(1 − p), times p·(1 − p)",
    binary_cross_entropy,
    {},
    draw(1505, 5, 7, scale=1000.0),
    targets=np.random.default_rng(1506).random((5, 7)),
    leaves=("x",),
    cause="not finite",
)
def through_the_logarithms(residuals, g):
    p, t = residuals
    d_p = (1.0 - t) / (1.0 - p) - t / p
    return {}, g / p.size * d_p * p * (1.0 - p)


SCALE = {"scale": np.array(1.3)}
VIEWS = Pair(draw(1507, 7, 5), draw(1508, 7, 5))


@plant(
    BUGS,
    "contrastive: only the half over the rows",
    contrastive,
    SCALE,
    VIEWS,
    leaves=("params.scale", "x.a", "x.b"),
    cause="missing term",
)
def half_over_the_rows(residuals, g):
    a, b, products, by_row, _, scale = residuals
    N = len(a)
    d_logits = g / N * 0.5 * (by_row - np.eye(N, dtype=a.dtype))
    d_products = scale * d_logits
    return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products.T @ a)


@plant(
    BUGS,
    "contrastive: b gets the same side of the logits as a",
    contrastive,
    SCALE,
    VIEWS,
    leaves=("x.b",),
    cause="jacobian not transposed",
)
def same_side_of_the_logits(residuals, g):
    a, b, products, by_row, by_column, scale = residuals
    N = len(a)
    d_logits = g / N * (0.5 * by_row + 0.5 * by_column - np.eye(N, dtype=a.dtype))
    d_products = scale * d_logits
    return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products @ a)
