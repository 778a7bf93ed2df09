"""The contract and conduct: writes, state, views, layouts, edges, what is returned."""

import math

import numpy as np
from functional_lm.reference.layers import rotary as rotary_twin

from functional_lm.layers import rotary
from functional_lm.numerics import rows

from ..bug import Bug, draw, plant
from ..research_layers import Pair
from ..research_losses import patch_embedding, positional_offset
from ..research_mixing import last_step, mixup
from ..research_more import (
    GELU_CUBE,
    GELU_INNER,
    gelu_mlp,
    group_norm,
    layer_scale,
    weight_norm,
)

BUGS: list[Bug] = []

X = draw(1601, 2, 7, 5)


@plant(
    BUGS,
    "layer_scale: the branch is added to g itself",
    layer_scale,
    {"weight": draw(1602, 5, 5), "gamma": draw(1603, 5)},
    X,
    cause="overwritten",
    says=("g",),
)
def added_to_g(residuals, g):
    x, t, weight, gamma = residuals
    d_gamma = rows(g * t).sum(axis=0)
    d_a = g * gamma * (1.0 - t * t)
    d_x = g
    d_x += d_a @ weight.T
    return {"weight": rows(x).T @ rows(d_a), "gamma": d_gamma}, d_x.copy()


NORMED = {"direction": draw(1604, 5, 7), "gain": draw(1605, 7)}


def normalise_in_place(params, x):
    direction, gain = params["direction"], params["gain"]
    norm = np.sqrt((direction * direction).sum(axis=0))
    direction /= norm
    return x @ (gain * direction), (x, direction, norm, gain)


plant(
    BUGS,
    "weight_norm: the forward normalises the parameter in place",
    weight_norm,
    NORMED,
    X,
    forward=normalise_in_place,
    cause="overwritten",
    says=("params",),
)(weight_norm.vjp)


GRADIENTS = {}


@plant(
    BUGS,
    "patch_embedding: the weight's gradient is added up from call to call",
    patch_embedding,
    {"weight": draw(1606, 4, 7)},
    draw(1607, 3, 6, 10),
    size=2,
    leaves=("params.weight",),
    cause="hidden state",
)
def added_up(residuals, g):
    patches, weight, tiles, shape = residuals
    d_x = (g @ weight.T).reshape(tiles).swapaxes(2, 3).reshape(shape)
    total = GRADIENTS.setdefault(weight.dtype, np.zeros_like(weight))
    total += rows(patches).T @ rows(g)
    return {"weight": total.copy()}, d_x


plant(
    BUGS,
    "last_step: y is a view of x",
    last_step,
    {},
    X,
    forward=lambda params, x: (x[:, -1], x.shape),
    cause="shared memory",
)(last_step.vjp)


@plant(
    BUGS,
    "positional_offset: g itself is d_x",
    positional_offset,
    {"offset": draw(1608, 11, 5)},
    X,
    cause="shared memory",
)
def g_itself(offset, g):
    d_offset = np.zeros_like(offset)
    d_offset[: g.shape[1]] = g.sum(axis=0)
    return {"offset": d_offset}, g


@plant(
    BUGS,
    "weight_norm: d_params is a pair and not a dict",
    weight_norm,
    NORMED,
    X,
    leaves=("params",),
    cause="structure",
)
def pair_of_gradients(residuals, g):
    x, unit, norm, gain = residuals
    d_weight = rows(x).T @ rows(g)
    d_unit = d_weight * gain
    d_direction = (d_unit - unit * (d_unit * unit).sum(axis=0)) / norm
    return (d_direction, (d_weight * unit).sum(axis=0)), g @ (gain * unit).T


@plant(
    BUGS,
    "mixup: three results, one for each input",
    mixup,
    {},
    Pair(draw(1609, 2, 7, 5), draw(1610, 2, 7, 5)),
    share=0.3,
    cause="structure",
)
def three_results(share, g):
    return {}, share * g, (1.0 - share) * g


@plant(
    BUGS,
    "rotary: g is viewed as complex numbers, which needs contiguous rows",
    rotary,
    {},
    draw(1611, 2, 5, 3, 6),
    positions=np.arange(5),
    reference=rotary_twin,
    cause="layout",
)
def viewed_as_complex(residuals, g):
    rotation, _, _ = residuals
    pairs = g.view(np.result_type(g.dtype, np.complex64)) * np.conj(rotation)
    return {}, pairs.view(g.dtype)


@plant(
    BUGS,
    "group_norm: −1 in a reshape is not defined for an empty batch",
    group_norm,
    {"scale": draw(1612, 6), "bias": draw(1613, 6)},
    draw(1614, 2, 5, 6),
    n_groups=3,
    cause="edge shape",
)
def minus_one_in_a_reshape(residuals, g):
    x_hat, rstd, scale = residuals
    B, T, G, C = x_hat.shape
    flat_hat = x_hat.swapaxes(1, 2).reshape(B, G, -1)
    h = (g * scale).reshape(B, T, G, C).swapaxes(1, 2).reshape(B, G, -1)
    mean_h = h.mean(axis=-1, keepdims=True)
    mean_hx = (h * flat_hat).mean(axis=-1, keepdims=True)
    d_flat = rstd.reshape(B, G, 1) * (h - mean_h - flat_hat * mean_hx)
    d_x = d_flat.reshape(B, G, T, C).swapaxes(1, 2).reshape(g.shape)
    d_scale = rows(g * x_hat.reshape(g.shape)).sum(axis=0)
    return {"scale": d_scale, "bias": rows(g).sum(axis=0)}, d_x


MLP = {"up": draw(1615, 5, 7), "up_bias": draw(1616, 7), "down": draw(1617, 7, 3)}


@plant(
    BUGS,
    "gelu_mlp: the backward of an older forward, which kept five arrays",
    gelu_mlp,
    MLP,
    X,
    cause="exception",
)
def kept_five_arrays(residuals, g):
    x, a, t, up, down = residuals
    h = 0.5 * a * (1.0 + t)
    d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * a * a)
    d_a = (g @ down.T) * (0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * d_inner)
    d_params = {
        "up": rows(x).T @ rows(d_a),
        "up_bias": rows(d_a).sum(axis=0),
        "down": rows(h).T @ rows(g),
    }
    return d_params, d_a @ up.T


def exact_gelu(params, x):
    """Return the value with erf; the backward is that of the tanh form."""
    _, residuals = gelu_mlp.forward(params, x)
    a = residuals[1]
    erf = np.array([math.erf(v) for v in (a / math.sqrt(2.0)).flat], a.dtype).reshape(a.shape)
    return (0.5 * a * (1.0 + erf)) @ params["down"], residuals


plant(
    BUGS,
    "gelu_mlp: the forward has erf where the reference has tanh",
    gelu_mlp,
    MLP,
    X,
    forward=exact_gelu,
    leaves=("y",),
    cause="value",
)(gelu_mlp.vjp)
