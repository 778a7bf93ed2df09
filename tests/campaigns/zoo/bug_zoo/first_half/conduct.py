"""Right numbers in a quiet moment: writes, state, views, layouts, edges."""

import numpy as np
from functional_lm.reference.layers import dropout as dropout_twin
from functional_lm.reference.layers import silu as silu_twin
from functional_lm.reference.layers import softmax as softmax_twin

from functional_lm.layers import dropout, silu, softmax
from functional_lm.numerics import rows

from ..bug import Bug, draw, plant
from ..research_layers import layer_norm, log_softmax
from ..research_sequences import head_scale

BUGS: list[Bug] = []


@plant(
    BUGS,
    "softmax: the products are formed in g to save memory",
    softmax,
    {},
    draw(601, 2, 3, 7),
    reference=softmax_twin,
    cause="overwritten",
    says=("g",),
)
def formed_in_g(residuals, g):
    (probs,) = residuals
    g *= probs
    return {}, g - probs * g.sum(axis=-1, keepdims=True)


@plant(
    BUGS,
    "layer_norm: the centred rows are normalised in place by the backward",
    layer_norm,
    {"scale": draw(602, 7), "bias": draw(603, 7)},
    draw(604, 2, 3, 7),
    cause="overwritten",
    says=("residuals",),
)
def normalised_in_place(residuals, g):
    x_hat, rstd, scale = residuals
    x_hat *= rstd
    h = g * scale
    mean_h = h.mean(axis=-1, keepdims=True)
    mean_hx = (h * x_hat).mean(axis=-1, keepdims=True)
    d_params = {"scale": rows(g * x_hat).sum(axis=0), "bias": rows(g).sum(axis=0)}
    return d_params, rstd * (h - mean_h - x_hat * mean_hx)


GENERATOR = np.random.default_rng(605)


@plant(
    BUGS,
    "dropout: the mask is drawn anew in the backward",
    dropout,
    {},
    draw(606, 2, 13, 7),
    rate=0.3,
    key=(5, 3),
    forward=lambda params, x, *, rate, key: (
        dropout.forward(params, x, rate=rate, key=key)[0],
        rate,
    ),
    reference=dropout_twin,
    leaves=("x",),
    cause="hidden state",
)
def drawn_anew(rate, g):
    kept = GENERATOR.random(g.shape) >= rate
    return {}, g * kept / (1.0 - rate)


CACHE = {}


def remember(params, x):
    CACHE["x"] = x
    return x * params["scale"][:, None], params["scale"]


@plant(
    BUGS,
    "head_scale: the input is remembered by the layer and not in the residuals",
    head_scale,
    {"scale": draw(607, 3)},
    draw(608, 5, 2, 3, 7),
    forward=remember,
    cause="hidden state",
)
def recalled(scale, g):
    return {"scale": (g * CACHE["x"]).sum(axis=(0, 1, 3))}, g * scale[:, None]


def keep_y(params, x):
    y, _ = log_softmax.forward(params, x)
    return y, y


@plant(
    BUGS,
    "log_softmax: y itself is the residual",
    log_softmax,
    {},
    draw(609, 3, 7),
    forward=keep_y,
    cause="shared memory",
)
def y_is_the_residual(y, g):
    return {}, g - np.exp(y) * g.sum(axis=-1, keepdims=True)


@plant(
    BUGS,
    "silu: flattened in the order in which the memory lies",
    silu,
    {},
    draw(610, 2, 3, 7),
    reference=silu_twin,
    cause="layout",
)
def flattened_as_it_lies(residuals, g):
    x, sigma = residuals
    slope = sigma * (1.0 + x * (1.0 - sigma))
    flat = g.ravel(order="K") * slope.ravel(order="K")
    return {}, flat.reshape(g.shape)


@plant(
    BUGS,
    "log_softmax: squeeze also drops a batch of one",
    log_softmax,
    {},
    draw(611, 3, 7),
    cause="edge shape",
)
def squeezes_the_batch(probs, g):
    total = g.sum(axis=-1, keepdims=True).squeeze()
    return {}, g - probs * total[:, None]
