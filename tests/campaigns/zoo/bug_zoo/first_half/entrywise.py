"""Activations, softmax and dropout."""

import numpy as np
from functional_lm.reference.layers import dropout as dropout_twin
from functional_lm.reference.layers import silu as silu_twin
from functional_lm.reference.layers import softmax as softmax_twin

from functional_lm.layers import dropout, silu, softmax
from functional_lm.numerics import rows, sigmoid

from ..bug import Bug, draw, plant
from ..research_layers import dynamic_tanh, log_softmax, softcap

BUGS: list[Bug] = []


@plant(
    BUGS,
    "softmax: the sum is added where it is subtracted",
    softmax,
    {},
    draw(301, 2, 3, 7),
    reference=softmax_twin,
    leaves=("x",),
    cause="wrong term",
)
def sum_is_added(residuals, g):
    (probs,) = residuals
    return {}, probs * (g + (g * probs).sum(axis=-1, keepdims=True))


@plant(
    BUGS,
    "log_softmax: g is not summed over the classes",
    log_softmax,
    {},
    draw(302, 2, 3, 7),
    leaves=("x",),
    cause="missing sum",
)
def not_summed_over_the_classes(probs, g):
    return {}, g - probs * g


@plant(
    BUGS,
    "log_softmax: the probabilities are computed anew without the maximum",
    log_softmax,
    {},
    draw(303, 5, 7, scale=1000.0),
    forward=lambda params, x: (log_softmax.forward(params, x)[0], x),
    leaves=("x",),
    cause="not finite",
)
def overflows(x, g):
    e = np.exp(x)
    probs = e / e.sum(axis=-1, keepdims=True)
    return {}, g - probs * g.sum(axis=-1, keepdims=True)


@plant(
    BUGS,
    "softcap: the slope of tanh is taken at x and not at x/cap",
    softcap,
    {},
    draw(304, 2, 3, 5, scale=2.0),
    cap=3.0,
    leaves=("x",),
    cause="wrong point",
)
def slope_at_x(residuals, g):
    x, _, _ = residuals
    return {}, g * (1.0 - np.tanh(x) ** 2)


@plant(
    BUGS,
    "softcap: large cotangents are clipped",
    softcap,
    {},
    draw(305, 2, 3, 5),
    cap=3.0,
    leaves=("x",),
    cause="not linear in g",
)
def clipped(residuals, g):
    _, t, _ = residuals
    return {}, np.clip(g, -1.0, 1.0) * (1.0 - t * t)


DYNAMIC = {"alpha": np.array(0.7), "gamma": draw(306, 5), "beta": draw(307, 5)}
X = draw(308, 2, 3, 5)


@plant(
    BUGS,
    "dynamic_tanh: alpha does not get the inner derivative x",
    dynamic_tanh,
    DYNAMIC,
    X,
    leaves=("params.alpha",),
    cause="missing factor",
)
def no_inner_derivative(residuals, g):
    _, t, alpha, gamma = residuals
    d_inner = g * gamma * (1.0 - t * t)
    d_params = {
        "alpha": d_inner.sum(),
        "gamma": rows(g * t).sum(axis=0),
        "beta": rows(g).sum(axis=0),
    }
    return d_params, d_inner * alpha


@plant(
    BUGS,
    "dynamic_tanh: gamma stays in its own gradient",
    dynamic_tanh,
    DYNAMIC,
    X,
    leaves=("params.gamma",),
    cause="extra factor",
    says=("gamma",),
)
def gamma_stays(residuals, g):
    x, t, alpha, gamma = residuals
    d_scaled = g * gamma
    d_inner = d_scaled * (1.0 - t * t)
    d_params = {
        "alpha": (d_inner * x).sum(),
        "gamma": rows(d_scaled * t).sum(axis=0),
        "beta": rows(g).sum(axis=0),
    }
    return d_params, d_inner * alpha


@plant(
    BUGS,
    "dropout: the mask without the scale 1/(1 − rate)",
    dropout,
    {},
    draw(309, 2, 13, 7),
    rate=0.3,
    key=(5, 3),
    reference=dropout_twin,
    leaves=("x",),
    cause="constant factor",
)
def mask_without_the_scale(residuals, g):
    return {}, g * (residuals.multiplier > 0)


def keep_half_precision(params, x):
    sigma = sigmoid(x)
    return x * sigma, (x, sigma.astype(np.float16))


@plant(
    BUGS,
    "silu: the sigmoid is kept in float16",
    silu,
    {},
    draw(310, 2, 3, 7),
    forward=keep_half_precision,
    reference=silu_twin,
    leaves=("x",),
    cause="precision",
    says=("float16",),
)
def half_precision(residuals, g):
    x, sigma = residuals
    sigma = sigma.astype(x.dtype)
    return {}, g * sigma * (1.0 + x * (1.0 - sigma))
