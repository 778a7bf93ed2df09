"""Normalisation: where means, scales and deviations go wrong."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, draw, plant_in, rows


class rms_norm(Layer):
    """y = x̂·s, where x̂ is the row over its root mean square (Zhang and Sennrich 2019)."""

    class Residuals(NamedTuple):
        x_hat: Any  # (..., D)
        rstd: Any  # (..., 1)
        scale: Any  # (D,)

    def forward(params, x, *, eps=1e-6):
        rstd = 1.0 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
        return x * rstd * params["scale"], rms_norm.Residuals(x * rstd, rstd, params["scale"])

    def vjp(residuals, g):
        x_hat, rstd, scale = residuals
        h = g * scale
        d_x = rstd * (h - x_hat * (h * x_hat).mean(axis=-1, keepdims=True))
        return {"scale": rows(g * x_hat).sum(axis=0)}, d_x

    def reference(params, x, *, eps=1e-6):
        rms = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
        return x / rms * params["scale"]


class layer_norm(Layer):
    """y = x̂·s + b, where x̂ is the row less its mean, over its deviation (Ba et al. 2016)."""

    class Residuals(NamedTuple):
        centred: Any  # (..., D)
        rstd: Any  # (..., 1)
        scale: Any  # (D,)

    def forward(params, x, *, eps=1e-5):
        centred = x - x.mean(axis=-1, keepdims=True)
        rstd = 1.0 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        y = centred * rstd * params["scale"] + params["bias"]
        return y, layer_norm.Residuals(centred, rstd, params["scale"])

    def vjp(residuals, g):
        centred, rstd, scale = residuals
        x_hat = centred * rstd
        h = g * scale
        mean_h = h.mean(axis=-1, keepdims=True)
        mean_hx = (h * x_hat).mean(axis=-1, keepdims=True)
        d_params = {"scale": rows(g * x_hat).sum(axis=0), "bias": rows(g).sum(axis=0)}
        return d_params, rstd * (h - mean_h - x_hat * mean_hx)

    def reference(params, x, *, eps=1e-5):
        return jax.nn.standardize(x, epsilon=eps) * params["scale"] + params["bias"]


class batch_norm(Layer):
    """Each column less its mean over the batch, over its deviation (Ioffe and Szegedy 2015)."""

    def forward(params, x, *, eps=1e-5):
        centred = x - x.mean(axis=0)
        rstd = 1.0 / np.sqrt((centred * centred).mean(axis=0) + eps)  # (D,)
        x_hat = centred * rstd
        return x_hat * params["scale"] + params["bias"], (x_hat, rstd, params["scale"])

    def vjp(residuals, g):
        x_hat, rstd, scale = residuals
        d_bias = g.sum(axis=0)
        d_scale = (g * x_hat).sum(axis=0)
        d_x = scale * rstd * (g - d_bias / len(g) - x_hat * (d_scale / len(g)))
        return {"scale": d_scale, "bias": d_bias}, d_x

    def reference(params, x, *, eps=1e-5):
        return jax.nn.standardize(x, axis=0, epsilon=eps) * params["scale"] + params["bias"]


class l2_normalize(Layer):
    """y = x/‖x‖ for each row."""

    def forward(params, x):
        norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        return x / norm, (x, norm)

    def vjp(residuals, g):
        x, norm = residuals
        unit = x / norm
        return {}, (g - unit * (g * unit).sum(axis=-1, keepdims=True)) / norm

    def reference(params, x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class group_norm(Layer):
    """Each group of channels less its mean over time and group, over its deviation."""

    def forward(params, x, *, n_groups, eps=1e-5):
        grouped = x.reshape(*x.shape[:2], n_groups, x.shape[2] // n_groups)  # (B, T, G, C)
        centred = grouped - grouped.mean(axis=(1, 3), keepdims=True)
        rstd = 1.0 / np.sqrt((centred * centred).mean(axis=(1, 3), keepdims=True) + eps)
        x_hat = centred * rstd
        y = x_hat.reshape(x.shape) * params["scale"] + params["bias"]
        return y, (x_hat, rstd, params["scale"])

    def vjp(residuals, g):
        x_hat, rstd, scale = residuals
        h = (g * scale).reshape(x_hat.shape)
        mean_h = h.mean(axis=(1, 3), keepdims=True)
        mean_hx = (h * x_hat).mean(axis=(1, 3), keepdims=True)
        d_x = rstd * (h - mean_h - x_hat * mean_hx)
        d_scale = rows(g * x_hat.reshape(g.shape)).sum(axis=0)
        return {"scale": d_scale, "bias": rows(g).sum(axis=0)}, d_x.reshape(g.shape)

    def reference(params, x, *, n_groups, eps=1e-5):
        grouped = jnp.stack(jnp.split(x, n_groups, axis=-1))  # (G, B, T, C)
        normal = jax.nn.standardize(grouped, axis=(2, 3), epsilon=eps)
        return jnp.concatenate(list(normal), axis=-1) * params["scale"] + params["bias"]


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


SCALE = {"scale": draw(101, 7)}
X = draw(102, 2, 3, 7)


def mean(values):
    return values.mean(axis=-1, keepdims=True)


RMS_NORM = (rms_norm, SCALE, X)


@plant(
    "rms_norm: the scale is left out on the way to x",
    *RMS_NORM,
    leaves="x",
    cause="missing factor",
    says=("scale",),
)
def no_scale(residuals, g):
    x_hat, rstd, _ = residuals
    d_params, _ = rms_norm.vjp(residuals, g)
    return d_params, rstd * (g - x_hat * mean(g * x_hat))


@plant("rms_norm: a sum for the mean of h·x̂", *RMS_NORM, leaves="x", cause="wrong term")
def sum_for_mean(residuals, g):
    x_hat, rstd, scale = residuals
    h = g * scale
    d_params, _ = rms_norm.vjp(residuals, g)
    return d_params, rstd * (h - x_hat * (h * x_hat).sum(axis=-1, keepdims=True))


AFFINE = {"scale": draw(103, 7), "bias": draw(104, 7)}
LAYER_NORM = (layer_norm, AFFINE, X)


@plant("layer_norm: the mean of h is not subtracted", *LAYER_NORM, leaves="x", cause="missing term")
def mean_not_subtracted(residuals, g):
    centred, rstd, scale = residuals
    x_hat, h = centred * rstd, g * scale
    d_params, _ = layer_norm.vjp(residuals, g)
    return d_params, rstd * (h - x_hat * mean(h * x_hat))


@plant(
    "layer_norm: the scale gets the centred rows before they are divided",
    *LAYER_NORM,
    leaves="params.scale",
    cause="missing factor",
    says=("rstd",),
)
def scale_before_division(residuals, g):
    d_params, d_x = layer_norm.vjp(residuals, g)
    return d_params | {"scale": rows(g * residuals[0]).sum(axis=0)}, d_x


@plant(
    "layer_norm: rstd multiplies h and then the whole once more",
    *LAYER_NORM,
    leaves="x",
    cause="extra factor",
    says=("rstd",),
)
def rstd_twice(residuals, g):
    centred, rstd, scale = residuals
    x_hat, h = centred * rstd, g * scale * rstd
    d_params, _ = layer_norm.vjp(residuals, g)
    return d_params, rstd * (h - mean(h) - x_hat * mean(h * x_hat))


@plant(
    "layer_norm: scale and bias get each other's gradient",
    *LAYER_NORM,
    leaves="params.bias params.scale",
    cause="swapped",
)
def scale_and_bias_exchanged(residuals, g):
    d_params, d_x = layer_norm.vjp(residuals, g)
    return {"scale": d_params["bias"], "bias": d_params["scale"]}, d_x


@plant(
    "batch_norm: the variance term is divided by N − 1",
    batch_norm,
    AFFINE,
    draw(105, 13, 7),
    leaves="x",
    cause="wrong term",
)
def divided_by_one_less(residuals, g):
    x_hat, rstd, scale = residuals
    N = len(g)
    d_params, _ = batch_norm.vjp(residuals, g)
    d_x = g - d_params["bias"] / N - x_hat * d_params["scale"] / (N - 1)
    return d_params, scale * rstd * d_x


@plant(
    "l2_normalize: projected, and not divided by the norm",
    l2_normalize,
    {},
    draw(106, 2, 3, 5),
    leaves="x",
    cause="missing factor",
)
def not_divided_by_the_norm(residuals, g):
    x, norm = residuals
    unit = x / norm
    return {}, g - unit * np.sum(g * unit, axis=-1, keepdims=True)


CHANNELS = {"scale": draw(1001, 6), "bias": draw(1002, 6)}
GROUPED = draw(1003, 2, 5, 6)


def over_group(values):
    return values.sum(axis=(1, 3), keepdims=True)


@plant(
    "group_norm: both means are divided by the channels of a group and not also by the times",
    group_norm,
    CHANNELS,
    GROUPED,
    n_groups=2,
    leaves="x",
    cause="wrong term",
)
def divided_by_the_channels(residuals, g):
    x_hat, rstd, scale = residuals
    C = x_hat.shape[3]
    h = (g * scale).reshape(x_hat.shape)
    d_params, _ = group_norm.vjp(residuals, g)
    d_x = rstd * (h - over_group(h) / C - x_hat * over_group(h * x_hat) / C)
    return d_params, d_x.reshape(g.shape)
