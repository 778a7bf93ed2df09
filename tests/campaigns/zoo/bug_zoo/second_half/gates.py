"""Gates, products of two inputs, recurrent steps and experts."""

import numpy as np

from functional_lm.numerics import rows, softmax_vjp

from ..bug import Bug, draw, plant
from ..research_layers import Pair
from ..research_more import Step, bilinear, gru_cell, soft_experts, squeeze_excite

BUGS: list[Bug] = []

GATE = {"squeeze": draw(1101, 5, 3), "excite": draw(1102, 3, 5)}
X = draw(1103, 2, 7, 5)


@plant(
    BUGS,
    "squeeze_excite: what comes back through the mean is not divided by the times",
    squeeze_excite,
    GATE,
    X,
    leaves=("x",),
    cause="wrong term",
)
def mean_is_taken_for_a_sum(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    d_h = (d_e @ excite.T) * (h > 0.0)
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


@plant(
    BUGS,
    "squeeze_excite: the relu is passed as if it were the identity",
    squeeze_excite,
    GATE,
    X,
    leaves=("params.squeeze", "x"),
    cause="missing factor",
)
def relu_without_a_slope(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    d_h = d_e @ excite.T
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None] / x.shape[1]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


@plant(
    BUGS,
    "squeeze_excite: the relu lets through where the cotangent is positive",
    squeeze_excite,
    GATE,
    X,
    leaves=("params.squeeze", "x"),
    cause="not linear in g",
)
def relu_of_the_cotangent(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    d_h = np.maximum(d_e @ excite.T, 0.0) * (h > 0.0)
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None] / x.shape[1]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


@plant(
    BUGS,
    "squeeze_excite: the gates of all examples get the sum over all examples",
    squeeze_excite,
    GATE,
    X,
    leaves=("params.excite", "params.squeeze", "x"),
    cause="edge shape",
)
def summed_over_the_batch_too(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=(0, 1)) * z * (1.0 - z)
    d_h = (d_e @ excite.T) * (h > 0.0)
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None] / x.shape[1]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


FORM = {"weight": draw(1104, 5, 5, 3)}
PAIR = Pair(draw(1105, 2, 7, 5), draw(1106, 2, 7, 5))


@plant(
    BUGS,
    "bilinear: the cotangents of a and b are exchanged",
    bilinear,
    FORM,
    PAIR,
    leaves=("x.a", "x.b"),
    cause="swapped",
)
def exchanged(residuals, g):
    a, b, weight = residuals
    d_weight = np.einsum("ni,nj,nk->ijk", rows(a), rows(b), rows(g))
    at_b = np.einsum("...k,ijk,...j->...i", g, weight, b)
    at_a = np.einsum("...k,ijk,...i->...j", g, weight, a)
    return {"weight": d_weight}, Pair(at_a, at_b)


@plant(
    BUGS,
    "bilinear: the outer product of b and a",
    bilinear,
    FORM,
    PAIR,
    leaves=("params.weight",),
    cause="transposed",
)
def outer_product_of_b_and_a(residuals, g):
    a, b, weight = residuals
    d_weight = np.einsum("ni,nj,nk->ijk", rows(b), rows(a), rows(g))
    d_a = np.einsum("...k,ijk,...j->...i", g, weight, b)
    d_b = np.einsum("...k,ijk,...i->...j", g, weight, a)
    return {"weight": d_weight}, Pair(d_a, d_b)


@plant(
    BUGS,
    "bilinear: b sees the matrix from the same side as a",
    bilinear,
    FORM,
    PAIR,
    leaves=("x.b",),
    cause="jacobian not transposed",
)
def same_side(residuals, g):
    a, b, weight = residuals
    d_weight = np.einsum("ni,nj,nk->ijk", rows(a), rows(b), rows(g))
    d_a = np.einsum("...k,ijk,...j->...i", g, weight, b)
    d_b = np.einsum("...k,ijk,...j->...i", g, weight, a)
    return {"weight": d_weight}, Pair(d_a, d_b)


CELL = {
    "gates": draw(1107, 8, 10),
    "gates_bias": draw(1108, 10),
    "candidate": draw(1109, 8, 5),
    "candidate_bias": draw(1110, 5),
}
STEP = Step(draw(1111, 7, 3), draw(1112, 7, 5))


def cell_cotangents(residuals, d_n, d_r, d_z, d_h):
    """Return the gradients, given those of the pre-activations and of the direct path to h."""
    both, inner, _, r, _, _, gates, candidate = residuals
    D = both.shape[1] - r.shape[1]
    d_gates = np.concatenate([d_r, d_z], axis=-1)
    d_inner, d_both = d_n @ candidate.T, d_gates @ gates.T
    d_params = {
        "gates": both.T @ d_gates,
        "gates_bias": d_gates.sum(axis=0),
        "candidate": inner.T @ d_n,
        "candidate_bias": d_n.sum(axis=0),
    }
    d_h = d_h + d_inner[:, D:] * r + d_both[:, D:]
    return d_params, Step(d_inner[:, :D] + d_both[:, :D], d_h)


@plant(
    BUGS,
    "gru_cell: tanh's slope from what goes into it",
    gru_cell,
    CELL,
    STEP,
    leaves=(
        "params.candidate",
        "params.candidate_bias",
        "params.gates",
        "params.gates_bias",
        "x.h",
        "x.x",
    ),
    cause="wrong point",
    forward=lambda params, x: (
        (forwarded := gru_cell.forward(params, x))[0],
        (*forwarded[1], params["candidate_bias"]),
    ),
)
def slope_from_the_argument(residuals, g):
    *residuals, candidate_bias = residuals
    _, inner, h, r, z, n, _, candidate = residuals
    a = inner @ candidate + candidate_bias
    d_n = g * (1.0 - z) * (1.0 - a * a)
    d_rh = (d_n @ candidate.T)[:, -h.shape[1] :]
    d_r, d_z = d_rh * h * r * (1.0 - r), g * (h - n) * z * (1.0 - z)
    return cell_cotangents(residuals, d_n, d_r, d_z, g * z)


@plant(
    BUGS,
    "gru_cell: h does not get what z lets through directly",
    gru_cell,
    CELL,
    STEP,
    leaves=("x.h",),
    cause="missing term",
)
def no_direct_path(residuals, g):
    _, _, h, r, z, n, _, candidate = residuals
    d_n = g * (1.0 - z) * (1.0 - n * n)
    d_rh = (d_n @ candidate.T)[:, -h.shape[1] :]
    d_r, d_z = d_rh * h * r * (1.0 - r), g * (h - n) * z * (1.0 - z)
    return cell_cotangents(residuals, d_n, d_r, d_z, 0.0)


@plant(
    BUGS,
    "gru_cell: the bias of the gates is made and not filled",
    gru_cell,
    CELL,
    STEP,
    leaves=("params.gates_bias",),
    cause="never written",
)
def bias_of_the_gates_not_filled(residuals, g):
    _, _, h, r, z, n, _, candidate = residuals
    d_n = g * (1.0 - z) * (1.0 - n * n)
    d_rh = (d_n @ candidate.T)[:, -h.shape[1] :]
    d_r, d_z = d_rh * h * r * (1.0 - r), g * (h - n) * z * (1.0 - z)
    d_params, d_step = cell_cotangents(residuals, d_n, d_r, d_z, g * z)
    return d_params | {"gates_bias": np.zeros_like(d_params["gates_bias"])}, d_step


EXPERTS = {"router": draw(1113, 5, 3), "experts": draw(1114, 3, 5, 7)}
TOKENS = draw(1115, 2, 7, 5)


@plant(
    BUGS,
    "soft_experts: x does not feel the router",
    soft_experts,
    EXPERTS,
    TOKENS,
    leaves=("x",),
    cause="missing term",
)
def no_path_through_the_router(residuals, g):
    x, probs, outs, _, experts = residuals
    flat, g = rows(x), rows(g)
    d_logits = softmax_vjp(probs, np.einsum("nf,nef->ne", g, outs))
    d_outs = probs[:, :, None] * g[:, None, :]
    d_params = {"router": flat.T @ d_logits, "experts": np.einsum("nd,nef->edf", flat, d_outs)}
    return d_params, np.einsum("nef,edf->nd", d_outs, experts).reshape(x.shape)


@plant(
    BUGS,
    "soft_experts: the probabilities weigh the experts' gradient twice",
    soft_experts,
    EXPERTS,
    TOKENS,
    leaves=("params.experts",),
    cause="extra factor",
)
def probabilities_twice(residuals, g):
    x, probs, outs, router, experts = residuals
    flat, g = rows(x), rows(g)
    d_logits = softmax_vjp(probs, np.einsum("nf,nef->ne", g, outs))
    d_outs = probs[:, :, None] * g[:, None, :]
    d_experts = np.einsum("nd,ne,nef->edf", flat, probs, d_outs)
    d_x = np.einsum("nef,edf->nd", d_outs, experts) + d_logits @ router.T
    return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)


@plant(
    BUGS,
    "soft_experts: in the loop each expert overwrites what the one before gave to x",
    soft_experts,
    EXPERTS,
    TOKENS,
    leaves=("x",),
    cause="slice kept",
)
def last_expert_only(residuals, g):
    x, probs, outs, router, experts = residuals
    flat, g = rows(x), rows(g)
    d_logits = softmax_vjp(probs, np.einsum("nf,nef->ne", g, outs))
    d_experts = np.zeros_like(experts)
    for e, expert in enumerate(experts):
        d_out = probs[:, e : e + 1] * g
        d_experts[e] = flat.T @ d_out
        d_x = d_out @ expert.T
    d_x += d_logits @ router.T
    return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)
