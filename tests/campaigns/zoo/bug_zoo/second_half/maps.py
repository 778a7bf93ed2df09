"""Norms, weights and activations: terms of the product and chain rule."""

import numpy as np

from functional_lm.numerics import rows, sigmoid

from ..bug import Bug, draw, plant
from ..research_more import (
    GELU_CUBE,
    GELU_INNER,
    gelu_mlp,
    group_norm,
    layer_scale,
    softplus,
    weight_norm,
)

BUGS: list[Bug] = []

CHANNELS = {"scale": draw(1001, 6), "bias": draw(1002, 6)}
X = draw(1003, 2, 5, 6)


def over_group(values):
    return values.sum(axis=(1, 3), keepdims=True)


@plant(
    BUGS,
    "group_norm: both means are divided by the channels of a group and not also by the times",
    group_norm,
    CHANNELS,
    X,
    n_groups=2,
    leaves=("x",),
    cause="wrong term",
)
def divided_by_the_channels(residuals, g):
    x_hat, rstd, scale = residuals
    C = x_hat.shape[3]
    h = (g * scale).reshape(x_hat.shape)
    d_x = rstd * (h - over_group(h) / C - x_hat * over_group(h * x_hat) / C)
    d_scale = rows(g * x_hat.reshape(g.shape)).sum(axis=0)
    return {"scale": d_scale, "bias": rows(g).sum(axis=0)}, d_x.reshape(g.shape)


NORMED = {"direction": draw(1004, 5, 7), "gain": draw(1005, 7)}
INPUT = draw(1006, 2, 3, 5)


@plant(
    BUGS,
    "weight_norm: the norm of the direction is taken for a constant",
    weight_norm,
    NORMED,
    INPUT,
    leaves=("params.direction",),
    cause="missing term",
)
def norm_is_a_constant(residuals, g):
    x, unit, norm, gain = residuals
    d_weight = rows(x).T @ rows(g)
    d_params = {"direction": d_weight * gain / norm, "gain": (d_weight * unit).sum(axis=0)}
    return d_params, g @ (gain * unit).T


@plant(
    BUGS,
    "weight_norm: the projection is not summed over the column",
    weight_norm,
    NORMED,
    INPUT,
    leaves=("params.direction",),
    cause="missing sum",
)
def projection_not_summed(residuals, g):
    x, unit, norm, gain = residuals
    d_weight = rows(x).T @ rows(g)
    d_unit = d_weight * gain
    d_direction = (d_unit - unit * (d_unit * unit)) / norm
    d_params = {"direction": d_direction, "gain": (d_weight * unit).sum(axis=0)}
    return d_params, g @ (gain * unit).T


@plant(
    BUGS,
    "weight_norm: the gain's gradient comes from what is multiplied with the gain already",
    weight_norm,
    NORMED,
    INPUT,
    leaves=("params.gain",),
    cause="extra factor",
    says=("gain",),
)
def gain_twice(residuals, g):
    x, unit, norm, gain = residuals
    d_unit = (rows(x).T @ rows(g)) * gain
    along = (d_unit * unit).sum(axis=0)
    d_direction = (d_unit - unit * along) / norm
    return {"direction": d_direction, "gain": along}, g @ (gain * unit).T


MLP = {"up": draw(1007, 5, 7), "up_bias": draw(1008, 7), "down": draw(1009, 7, 3)}


def with_slope(residuals, g, slope):
    """Return the gradients of the network, given the slope of its gelu."""
    x, _, _, h, up, down = residuals
    d_a = (g @ down.T) * slope
    d_params = {
        "up": rows(x).T @ rows(d_a),
        "up_bias": rows(d_a).sum(axis=0),
        "down": rows(h).T @ rows(g),
    }
    return d_params, d_a @ up.T


@plant(
    BUGS,
    "gelu_mlp: the three of the cube's derivative is forgotten",
    gelu_mlp,
    MLP,
    INPUT,
    leaves=("params.up", "params.up_bias", "x"),
    cause="wrong term",
)
def three_forgotten(residuals, g):
    _, a, t, *_ = residuals
    d_inner = GELU_INNER * (1.0 + GELU_CUBE * a * a)
    return with_slope(residuals, g, 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * d_inner)


@plant(
    BUGS,
    "gelu_mlp: the slope is taken at the activation",
    gelu_mlp,
    MLP,
    INPUT,
    leaves=("params.up", "params.up_bias", "x"),
    cause="wrong point",
)
def slope_at_the_activation(residuals, g):
    h = residuals[3]
    t = np.tanh(GELU_INNER * (h + GELU_CUBE * h * h * h))
    d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * h * h)
    return with_slope(residuals, g, 0.5 * (1.0 + t) + 0.5 * h * (1.0 - t * t) * d_inner)


BRANCH = {"weight": draw(1010, 5, 5), "gamma": draw(1011, 5)}


@plant(
    BUGS,
    "layer_scale: the skip's cotangent is added twice",
    layer_scale,
    BRANCH,
    INPUT,
    leaves=("x",),
    cause="wrong term",
)
def skip_twice(residuals, g):
    x, t, weight, gamma = residuals
    d_a = g * gamma * (1.0 - t * t)
    d_x = g.copy()
    d_x += g + d_a @ weight.T
    return {"weight": rows(x).T @ rows(d_a), "gamma": rows(g * t).sum(axis=0)}, d_x


@plant(
    BUGS,
    "layer_scale: gamma is left out on the way to the weight",
    layer_scale,
    BRANCH,
    INPUT,
    leaves=("params.weight",),
    cause="missing factor",
    says=("gamma",),
)
def weight_without_gamma(residuals, g):
    x, t, weight, gamma = residuals
    slope = 1.0 - t * t
    d_weight = rows(x).T @ rows(g * slope)
    d_x = g + (g * gamma * slope) @ weight.T
    return {"weight": d_weight, "gamma": rows(g * t).sum(axis=0)}, d_x


ENTRIES = draw(1012, 2, 3, 7)


@plant(
    BUGS,
    "softplus: the 1/beta of the forward stays in the slope",
    softplus,
    {},
    ENTRIES,
    beta=3.0,
    leaves=("x",),
    cause="constant factor",
)
def one_over_beta_stays(residuals, g):
    x, beta = residuals
    return {}, g * sigmoid(beta * x) / beta


@plant(
    BUGS,
    "softplus: the sigmoid of the output",
    softplus,
    {},
    ENTRIES,
    beta=0.7,
    forward=lambda params, x, *, beta: (softplus.forward({}, x, beta=beta)[0], (x, beta)),
    leaves=("x",),
    cause="wrong point",
)
def sigmoid_of_the_output(residuals, g):
    x, beta = residuals
    y, _ = softplus.forward({}, x, beta=beta)
    return {}, g * sigmoid(beta * y)


@plant(
    BUGS,
    "softplus: e/(1 + e) overflows",
    softplus,
    {},
    draw(1013, 5, 7, scale=1000.0),
    beta=1.0,
    leaves=("x",),
    cause="not finite",
)
def sigmoid_overflows(residuals, g):
    x, beta = residuals
    e = np.exp(beta * x)
    return {}, g * (e / (1.0 + e))


@plant(
    BUGS,
    "softplus: the slope of tiny values is 1 − exp(−y), which cancels",
    softplus,
    {},
    draw(1014, 5, 7) - 12.0,
    beta=1.0,
    forward=lambda params, x, *, beta: (softplus.forward({}, x, beta=beta)[0], (x, beta)),
    leaves=("x",),
    cause="precision",
)
def cancels(residuals, g):
    x, beta = residuals
    y, _ = softplus.forward({}, x, beta=beta)
    return {}, g * (1.0 - np.exp(-beta * y))
