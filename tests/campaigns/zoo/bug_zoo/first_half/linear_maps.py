"""Matrices: linear, unembedding, swiglu, adapters, small networks."""

import numpy as np
from functional_lm.reference.layers import linear as linear_twin
from functional_lm.reference.layers import swiglu as swiglu_twin
from functional_lm.reference.layers import unembedding as unembedding_twin

from functional_lm.layers import linear, swiglu, unembedding
from functional_lm.numerics import rows, sigmoid

from ..bug import Bug, draw, plant
from ..research_layers import Pair, gated_mix, lora, tanh_mlp, tied_autoencoder

BUGS: list[Bug] = []

AFFINE = {"weight": draw(1, 5, 3), "bias": draw(2, 3)}


@plant(
    BUGS,
    "linear: the bias gets the mean of the rows",
    linear,
    AFFINE,
    draw(3, 7, 5),
    reference=linear_twin,
    leaves=("params.bias",),
    cause="constant factor",
    says=("1/7",),
)
def bias_gets_the_mean(residuals, g):
    x, weight, _ = residuals
    return {"weight": x.T @ g, "bias": g.sum(axis=0) / max(len(g), 1)}, g @ weight.T


@plant(
    BUGS,
    "linear: the bias is summed over the batch and not over time",
    linear,
    AFFINE,
    draw(4, 2, 7, 5),
    reference=linear_twin,
    leaves=("params.bias",),
    cause="missing sum",
)
def bias_summed_over_the_batch_only(residuals, g):
    x, weight, _ = residuals
    return {"weight": rows(x).T @ rows(g), "bias": g.sum(axis=0)}, g @ weight.T


@plant(
    BUGS,
    "linear: W for its transpose in d_x",
    linear,
    {"weight": draw(5, 5, 5)},
    draw(6, 2, 3, 5),
    reference=linear_twin,
    leaves=("x",),
    cause="jacobian not transposed",
)
def weight_not_transposed(residuals, g):
    x, weight, _ = residuals
    return {"weight": rows(x).T @ rows(g)}, g @ weight


@plant(
    BUGS,
    "linear: .T of a batch of sequences reverses all axes",
    linear,
    AFFINE,
    draw(7, 2, 7, 5),
    reference=linear_twin,
    cause="exception",
)
def reverses_all_axes(residuals, g):
    x, weight, _ = residuals
    return {"weight": x.T @ g, "bias": g.sum(axis=(0, 1))}, g @ weight.T


@plant(
    BUGS,
    "linear: the bias is left out of d_params",
    linear,
    AFFINE,
    draw(8, 2, 5),
    reference=linear_twin,
    leaves=("params.bias",),
    cause="structure",
    says=("bias",),
)
def no_bias_in_the_gradient(residuals, g):
    x, weight, _ = residuals
    return {"weight": x.T @ g}, g @ weight.T


@plant(
    BUGS,
    "unembedding: the weight gradient is xᵀ·g for gᵀ·x",
    unembedding,
    {"weight": draw(9, 7, 7)},
    draw(10, 2, 3, 7),
    reference=unembedding_twin,
    leaves=("params.weight",),
    cause="transposed",
)
def outer_product_the_other_way(residuals, g):
    x, weight = residuals
    return {"weight": rows(x).T @ rows(g)}, g @ weight


@plant(
    BUGS,
    "swiglu: the planes of gate and up are stacked in the other order",
    swiglu,
    {"gate_up": draw(11, 2, 5, 7), "down": draw(12, 7, 5)},
    draw(13, 2, 3, 5),
    reference=swiglu_twin,
    leaves=("params.gate_up",),
    cause="misplaced",
)
def planes_in_the_other_order(residuals, g):
    x, (up_slope, gate_slope), hidden, gate_up, down = residuals
    g = rows(g)
    d_hidden = g @ down.T
    d_gate, d_up = d_hidden * gate_slope, d_hidden * up_slope
    d_gate_up = np.stack([rows(x).T @ d_up, rows(x).T @ d_gate])
    d_x = d_gate @ gate_up[0].T + d_up @ gate_up[1].T
    return {"gate_up": d_gate_up, "down": hidden.T @ g}, d_x.reshape(x.shape)


@plant(
    BUGS,
    "lora: the path to x through the adapter is not scaled",
    lora,
    {"weight": draw(14, 5, 7), "down": draw(15, 5, 3), "up": draw(16, 3, 7)},
    draw(17, 2, 13, 5),
    alpha=16.0,
    leaves=("x",),
    cause="wrong term",
)
def adapter_path_not_scaled(residuals, g):
    x, low, weight, down, up, scaling = residuals
    d_low = g @ up.T
    d_params = {
        "weight": rows(x).T @ rows(g),
        "down": scaling * (rows(x).T @ rows(d_low)),
        "up": scaling * (rows(low).T @ rows(g)),
    }
    return d_params, g @ weight.T + d_low @ down.T


@plant(
    BUGS,
    "tanh_mlp: tanh is applied once more to the hidden values",
    tanh_mlp,
    {
        "up": {"weight": draw(18, 5, 7), "bias": draw(19, 7)},
        "down": {"weight": draw(20, 7, 3), "bias": draw(21, 3)},
    },
    draw(22, 2, 3, 5),
    leaves=("params.up.bias", "params.up.weight", "x"),
    cause="wrong point",
)
def tanh_of_tanh(residuals, g):
    x, h, up, down = residuals
    d_a = (g @ down.T) * (1.0 - np.tanh(h) ** 2)
    d_up = {"weight": rows(x).T @ rows(d_a), "bias": rows(d_a).sum(axis=0)}
    d_down = {"weight": rows(h).T @ rows(g), "bias": rows(g).sum(axis=0)}
    return {"up": d_up, "down": d_down}, d_a @ up.T


@plant(
    BUGS,
    "tied_autoencoder: the weight's use in the decoder is not counted",
    tied_autoencoder,
    {"weight": draw(23, 7, 3)},
    draw(24, 2, 5, 7),
    leaves=("params.weight",),
    cause="missing term",
)
def decoder_not_counted(residuals, g):
    x, h, weight = residuals
    d_a = (g @ weight) * (1.0 - h * h)
    return {"weight": rows(x).T @ rows(d_a)}, d_a @ weight.T


MIX = {"weight": draw(25, 5, 5), "bias": draw(26, 5)}
PAIR = Pair(draw(27, 2, 3, 5), draw(28, 2, 3, 5))


@plant(
    BUGS,
    "gated_mix: the sigmoid's slope is taken at z, which is one already",
    gated_mix,
    MIX,
    PAIR,
    leaves=("params.bias", "params.weight", "x.a"),
    cause="wrong point",
)
def sigmoid_of_sigmoid(residuals, g):
    a, b, z, weight = residuals
    slope = sigmoid(z) * (1.0 - sigmoid(z))
    d_inner = g * (a - b) * slope
    d_params = {"weight": rows(a).T @ rows(d_inner), "bias": rows(d_inner).sum(axis=0)}
    return d_params, Pair(g * z + d_inner @ weight.T, g * (1.0 - z))


@plant(
    BUGS,
    "gated_mix: d_x is a plain tuple",
    gated_mix,
    MIX,
    PAIR,
    leaves=("x",),
    cause="structure",
)
def plain_tuple(residuals, g):
    a, b, z, weight = residuals
    d_inner = g * (a - b) * z * (1.0 - z)
    d_params = {"weight": rows(a).T @ rows(d_inner), "bias": rows(d_inner).sum(axis=0)}
    return d_params, (g * z + d_inner @ weight.T, g * (1.0 - z))
