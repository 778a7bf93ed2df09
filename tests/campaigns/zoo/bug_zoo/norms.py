"""Normalisation: where means, scales and deviations go wrong."""

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.layers import l2_norm, layer_norm, rms_norm
from functional_lm.numerics import rows

from .bug import Layer, draw, plant

AFFINE = {"scale": draw(103, 7), "bias": draw(104, 7)}
X = draw(102, 2, 3, 7)

plant(
    rms_norm,
    {"scale": draw(101, 7)},
    X,
    """
    the scale is left out on the way to x
    x: missing factor (scale)
    - h = g * scale
    + h = g

    a sum for the mean of h·x̂
    x: wrong term
    - mean_product = row_dot(h, x_hat) / len(scale)
    + mean_product = row_dot(h, x_hat)
    """,
)

plant(
    l2_norm,
    {},
    X,
    """
    the length is taken for a constant
    x: missing term
    - return {}, scale * (g - y * row_dot(g, y))
    + return {}, scale * g
    """,
)

plant(
    rms_norm,
    {"scale": draw(105, 7)},
    X,
    """
    the parameter is taken for the scale, without its offset
    x: missing term
    - h = g * scale
    + h = g * (scale - 1.0)
    """,
    offset=1.0,
)

plant(
    layer_norm,
    AFFINE,
    X,
    """
    the mean of h is not subtracted
    x: missing term
    - d_x = rstd * (h - row_mean(h) - x_hat * mean_product)
    + d_x = rstd * (h - x_hat * mean_product)

    the scale gets the centred rows before they are divided
    params.scale: missing factor (rstd)
    - return y, Residuals(x_hat, rstd, scale, bias is not None)
    + return y, Residuals(centred, rstd, scale, bias is not None)
    - x_hat, rstd, scale, has_bias = residuals
    + centred, rstd, scale, has_bias = residuals
    + x_hat = centred * rstd
    - d_params = {"scale": sum_rows(rows(g * x_hat))}
    + d_params = {"scale": sum_rows(rows(g * centred))}
    - expect_cotangent(g, x_hat.shape, x_hat.dtype)

    rstd multiplies h and then the whole once more
    x: extra factor (rstd)
    - h = g * scale
    + h = g * scale * rstd

    scale and bias get each other's gradient
    params.bias params.scale: swapped
    - d_params = {"scale": sum_rows(rows(g * x_hat))}
    + d_params = {"bias": sum_rows(rows(g * x_hat))}
    - d_params["bias"] = sum_rows(rows(g))
    + d_params["scale"] = sum_rows(rows(g))

    the centred rows are normalised in place by the backward
    overwritten (residuals)
    - return y, Residuals(x_hat, rstd, scale, bias is not None)
    + return y, Residuals(centred, rstd, scale, bias is not None)
    - h = g * scale
    + x_hat *= rstd
    + h = g * scale
    """,
)


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

    inputs = (AFFINE, draw(105, 13, 7), {})
    bugs = """
    the variance term is divided by N − 1
    x: wrong term
    - d_x = scale * rstd * (g - d_bias / len(g) - x_hat * (d_scale / len(g)))
    + d_x = scale * rstd * (g - d_bias / len(g) - x_hat * (d_scale / (len(g) - 1)))
    """


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

    inputs = ({}, draw(106, 2, 3, 5), {})
    bugs = """
    projected, and not divided by the norm
    x: missing factor
    - return {}, (g - unit * (g * unit).sum(axis=-1, keepdims=True)) / norm
    + return {}, g - unit * (g * unit).sum(axis=-1, keepdims=True)
    """


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

    inputs = ({"scale": draw(1001, 6), "bias": draw(1002, 6)}, draw(1003, 2, 5, 6), {"n_groups": 2})
    bugs = """
    both means are divided by the channels of a group and not also by the times
    x: wrong term
    - mean_h = h.mean(axis=(1, 3), keepdims=True)
    - mean_hx = (h * x_hat).mean(axis=(1, 3), keepdims=True)
    + mean_h = h.sum(axis=(1, 3), keepdims=True) / h.shape[3]
    + mean_hx = (h * x_hat).sum(axis=(1, 3), keepdims=True) / h.shape[3]

    −1 in a reshape is not defined for an empty batch
    edge shape
    - h = (g * scale).reshape(x_hat.shape)
    - mean_h = h.mean(axis=(1, 3), keepdims=True)
    - mean_hx = (h * x_hat).mean(axis=(1, 3), keepdims=True)
    + h = (g * scale).reshape(x_hat.shape)
    + flat, flat_hat = (v.swapaxes(1, 2).reshape(*rstd.shape[::2], -1) for v in (h, h * x_hat))
    + mean_h = flat.mean(axis=-1)[:, None, :, None]
    + mean_hx = flat_hat.mean(axis=-1)[:, None, :, None]
    """
