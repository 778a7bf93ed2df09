"""Normalisation: where the means, scales and deviations go wrong."""

import numpy as np
from functional_lm.reference.layers import rms_norm as rms_norm_twin

from functional_lm.layers import rms_norm
from functional_lm.numerics import rows

from ..bug import Bug, draw, plant
from ..research_layers import batch_norm, l2_normalize, layer_norm

BUGS: list[Bug] = []

SCALE = {"scale": draw(101, 7)}
X = draw(102, 2, 3, 7)
AFFINE = {"scale": draw(103, 7), "bias": draw(104, 7)}


def mean(values):
    return values.mean(axis=-1, keepdims=True)


@plant(
    BUGS,
    "rms_norm: the scale is left out on the way to x",
    rms_norm,
    SCALE,
    X,
    reference=rms_norm_twin,
    leaves=("x",),
    cause="missing factor",
    says=("scale",),
)
def no_scale(residuals, g):
    x_hat, rstd, _ = residuals
    return {"scale": rows(g * x_hat).sum(axis=0)}, rstd * (g - x_hat * mean(g * x_hat))


@plant(
    BUGS,
    "rms_norm: a sum for the mean of h·x̂",
    rms_norm,
    SCALE,
    X,
    reference=rms_norm_twin,
    leaves=("x",),
    cause="wrong term",
)
def sum_for_mean(residuals, g):
    x_hat, rstd, scale = residuals
    h = g * scale
    projection = (h * x_hat).sum(axis=-1, keepdims=True)
    return {"scale": rows(g * x_hat).sum(axis=0)}, rstd * (h - x_hat * projection)


@plant(
    BUGS,
    "layer_norm: the mean of h is not subtracted",
    layer_norm,
    AFFINE,
    X,
    leaves=("x",),
    cause="missing term",
)
def mean_not_subtracted(residuals, g):
    centred, rstd, scale = residuals
    x_hat = centred * rstd
    h = g * scale
    d_params = {"scale": rows(g * x_hat).sum(axis=0), "bias": rows(g).sum(axis=0)}
    return d_params, rstd * (h - x_hat * mean(h * x_hat))


@plant(
    BUGS,
    "layer_norm: the scale gets the centred rows before they are divided",
    layer_norm,
    AFFINE,
    X,
    leaves=("params.scale",),
    cause="missing factor",
    says=("rstd",),
)
def scale_before_division(residuals, g):
    centred, rstd, scale = residuals
    x_hat = centred * rstd
    h = g * scale
    d_params = {"scale": rows(g * centred).sum(axis=0), "bias": rows(g).sum(axis=0)}
    return d_params, rstd * (h - mean(h) - x_hat * mean(h * x_hat))


@plant(
    BUGS,
    "layer_norm: rstd multiplies h and then the whole once more",
    layer_norm,
    AFFINE,
    X,
    leaves=("x",),
    cause="extra factor",
    says=("rstd",),
)
def rstd_twice(residuals, g):
    centred, rstd, scale = residuals
    x_hat = centred * rstd
    h = g * scale * rstd
    d_params = {"scale": rows(g * x_hat).sum(axis=0), "bias": rows(g).sum(axis=0)}
    return d_params, rstd * (h - mean(h) - x_hat * mean(h * x_hat))


@plant(
    BUGS,
    "layer_norm: scale and bias get each other's gradient",
    layer_norm,
    AFFINE,
    X,
    leaves=("params.bias", "params.scale"),
    cause="swapped",
)
def scale_and_bias_exchanged(residuals, g):
    centred, rstd, scale = residuals
    x_hat = centred * rstd
    h = g * scale
    d_scale, d_bias = rows(g).sum(axis=0), rows(g * x_hat).sum(axis=0)
    return {"scale": d_scale, "bias": d_bias}, rstd * (h - mean(h) - x_hat * mean(h * x_hat))


@plant(
    BUGS,
    "batch_norm: the variance term is divided by N − 1",
    batch_norm,
    AFFINE,
    draw(105, 13, 7),
    leaves=("x",),
    cause="wrong term",
)
def divided_by_one_less(residuals, g):
    x_hat, rstd, scale = residuals
    N = len(g)
    d_bias = g.sum(axis=0)
    d_scale = (g * x_hat).sum(axis=0)
    d_x = scale * rstd * (g - d_bias / N - x_hat * d_scale / (N - 1))
    return {"scale": d_scale, "bias": d_bias}, d_x


@plant(
    BUGS,
    "l2_normalize: projected, and not divided by the norm",
    l2_normalize,
    {},
    draw(106, 2, 3, 5),
    leaves=("x",),
    cause="missing factor",
)
def not_divided_by_the_norm(residuals, g):
    x, norm = residuals
    unit = x / norm
    return {}, g - unit * np.sum(g * unit, axis=-1, keepdims=True)
