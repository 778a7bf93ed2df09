"""Right numbers in a quiet moment: writes, state, views, layouts, edges, structure."""

import math
from functools import partial

import numpy as np

from .attention import rotary
from .bug import Bug, Pair, draw, plant_in, rows
from .entrywise import dropout, log_softmax, silu, softmax
from .gates import head_scale, mixup
from .maps import GELU_CUBE, GELU_INNER, gelu_mlp, layer_scale, patch_embedding, weight_norm
from .norms import group_norm, layer_norm
from .over_time import last_step, positional_offset

BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


@plant(
    "softmax: the products are formed in g to save memory",
    softmax,
    {},
    draw(601, 2, 3, 7),
    cause="overwritten",
    says=("g",),
)
def formed_in_g(residuals, g):
    (probs,) = residuals
    g *= probs
    return {}, g - probs * g.sum(axis=-1, keepdims=True)


@plant(
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
    leaves="x",
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
    "silu: flattened in the order in which the memory lies",
    silu,
    {},
    draw(610, 2, 3, 7),
    cause="layout",
)
def flattened_as_it_lies(residuals, g):
    x, sigma = residuals
    slope = sigma * (1.0 + x * (1.0 - sigma))
    return {}, (g.ravel(order="K") * slope.ravel(order="K")).reshape(g.shape)


@plant(
    "log_softmax: squeeze also drops a batch of one",
    log_softmax,
    {},
    draw(611, 3, 7),
    cause="edge shape",
)
def squeezes_the_batch(probs, g):
    total = g.sum(axis=-1, keepdims=True).squeeze()
    return {}, g - probs * total[:, None]


X = draw(1601, 2, 7, 5)


@plant(
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


WEIGHT_NORM = (weight_norm, NORMED, X)


plant(
    "weight_norm: the forward normalises the parameter in place",
    *WEIGHT_NORM,
    forward=normalise_in_place,
    cause="overwritten",
    says=("params",),
)(weight_norm.vjp)


GRADIENTS = {}


@plant(
    "patch_embedding: the weight's gradient is added up from call to call",
    patch_embedding,
    {"weight": draw(1606, 4, 7)},
    draw(1607, 3, 6, 10),
    size=2,
    leaves="params.weight",
    cause="hidden state",
)
def added_up(residuals, g):
    d_params, d_x = patch_embedding.vjp(residuals, g)
    weight = d_params["weight"]
    total = GRADIENTS.setdefault(weight.dtype, np.zeros_like(weight))
    total += weight
    return {"weight": total.copy()}, d_x


plant(
    "last_step: y is a view of x",
    last_step,
    {},
    X,
    forward=lambda params, x: (x[:, -1], x.shape),
    cause="shared memory",
)(last_step.vjp)


@plant(
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
    "weight_norm: d_params is a pair and not a dict",
    *WEIGHT_NORM,
    leaves="params",
    cause="structure",
)
def pair_of_gradients(residuals, g):
    d_params, d_x = weight_norm.vjp(residuals, g)
    return (d_params["direction"], d_params["gain"]), d_x


@plant(
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
    "rotary: g is viewed as complex numbers, which needs contiguous rows",
    rotary,
    {},
    draw(1611, 2, 5, 3, 6),
    positions=np.arange(5),
    cause="layout",
)
def viewed_as_complex(residuals, g):
    (rotation,) = residuals
    pairs = g.view(np.result_type(g.dtype, np.complex64)) * np.conj(rotation)
    return {}, pairs.view(g.dtype)


@plant(
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
GELU_MLP = (gelu_mlp, MLP, X)


@plant(
    "gelu_mlp: the backward of an older forward, which kept five arrays",
    *GELU_MLP,
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
    "gelu_mlp: the forward has erf where the reference has tanh",
    *GELU_MLP,
    forward=exact_gelu,
    leaves="y",
    cause="value",
)(gelu_mlp.vjp)
