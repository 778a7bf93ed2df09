"""Gates, experts and mixtures: one part of the input weighs another."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, Pair, draw, plant_in, probabilities, rows, sigmoid, softmax_vjp


class gated_mix(Layer):
    """y = z·a + (1 − z)·b with z = σ(a·W + bias), as in highway networks."""

    def forward(params, x):
        a, b = x
        z = sigmoid(a @ params["weight"] + params["bias"])
        return z * a + (1.0 - z) * b, (a, b, z, params["weight"])

    def vjp(residuals, g):
        a, b, z, weight = residuals
        d_inner = g * (a - b) * z * (1.0 - z)
        d_params = {"weight": rows(a).T @ rows(d_inner), "bias": rows(d_inner).sum(axis=0)}
        return d_params, Pair(g * z + d_inner @ weight.T, g * (1.0 - z))

    def reference(params, x):
        a, b = x
        z = jax.nn.sigmoid(a @ params["weight"] + params["bias"])
        return z * a + (1 - z) * b


class head_scale(Layer):
    """Each head times its own number."""

    def forward(params, x):
        scale = params["scale"]  # (H,)
        return x * scale[:, None], (x, scale)  # (B, T, H, K)

    def vjp(residuals, g):
        x, scale = residuals
        return {"scale": (g * x).sum(axis=(0, 1, 3))}, g * scale[:, None]

    def reference(params, x):
        return jnp.einsum("bthk,h->bthk", x, params["scale"])


class top1_gate(Layer):
    """Each row goes to the expert that the router likes best, times that probability."""

    def forward(params, x):
        router, experts = params["router"], params["experts"]  # (D, E), (E, D, F)
        flat = rows(x)
        probs = probabilities(flat @ router)  # (N, E)
        chosen = probs.argmax(axis=-1)  # (N,)
        gate = np.take_along_axis(probs, chosen[:, None], axis=1)  # (N, 1)
        out = np.einsum("nd,ndf->nf", flat, experts[chosen])
        y = (gate * out).reshape(*x.shape[:-1], out.shape[1])
        return y, (x, probs, chosen, gate, out, router, experts)

    def vjp(residuals, g):
        x, probs, chosen, gate, out, router, experts = residuals
        flat, g = rows(x), rows(g)
        d_out = g * gate
        d_experts = np.zeros_like(experts)
        np.add.at(d_experts, chosen, flat[:, :, None] * d_out[:, None, :])
        d_gate = (g * out).sum(axis=1, keepdims=True)
        one_hot = (chosen[:, None] == np.arange(probs.shape[1])).astype(probs.dtype)
        d_logits = d_gate * gate * (one_hot - probs)
        d_x = np.einsum("nf,ndf->nd", d_out, experts[chosen]) + d_logits @ router.T
        return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)

    def reference(params, x):
        probs = jax.nn.softmax(x @ params["router"], axis=-1)
        best = jax.nn.one_hot(probs.argmax(axis=-1), probs.shape[-1], dtype=x.dtype)
        return jnp.einsum("...e,...e,...d,edf->...f", best, probs, x, params["experts"])


class squeeze_excite(Layer):
    """Each channel times a gate, which a small network makes of the means over time."""

    def forward(params, x):
        squeeze, excite = params["squeeze"], params["excite"]  # (D, R), (R, D)
        mean = x.mean(axis=1)  # (B, D)
        h = np.maximum(mean @ squeeze, 0.0)  # (B, R)
        z = sigmoid(h @ excite)  # (B, D)
        return x * z[:, None], (x, mean, h, z, squeeze, excite)

    def vjp(residuals, g):
        x, mean, h, z, squeeze, excite = residuals
        d_e = (g * x).sum(axis=1) * z * (1.0 - z)
        d_h = (d_e @ excite.T) * (h > 0.0)
        d_mean = d_h @ squeeze.T
        d_x = g * z[:, None] + d_mean[:, None] / x.shape[1]
        return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x

    def reference(params, x):
        h = jax.nn.relu(x.mean(axis=1, keepdims=True) @ params["squeeze"])
        return x * jax.nn.sigmoid(h @ params["excite"])


class Step(NamedTuple):
    """The input of `gru_cell`."""

    x: Any  # (B, D)
    h: Any  # (B, H)


class gru_cell(Layer):
    """h' = (1 − z)·n + z·h, with a reset gate r inside of n (Cho et al. 2014)."""

    def forward(params, x):
        x, h = x
        both = np.concatenate([x, h], axis=-1)
        r, z = np.split(sigmoid(both @ params["gates"] + params["gates_bias"]), 2, axis=-1)
        inner = np.concatenate([x, r * h], axis=-1)
        n = np.tanh(inner @ params["candidate"] + params["candidate_bias"])
        y = (1.0 - z) * n + z * h
        return y, (both, inner, h, r, z, n, params["gates"], params["candidate"])

    def vjp(residuals, g):
        both, inner, h, r, z, n, gates, candidate = residuals
        D = both.shape[1] - h.shape[1]
        d_n = g * (1.0 - z) * (1.0 - n * n)
        d_inner = d_n @ candidate.T
        d_rh = d_inner[:, D:]
        d_gates = np.concatenate([d_rh * h * r * (1.0 - r), g * (h - n) * z * (1.0 - z)], axis=-1)
        d_both = d_gates @ gates.T
        d_params = {
            "gates": both.T @ d_gates,
            "gates_bias": d_gates.sum(axis=0),
            "candidate": inner.T @ d_n,
            "candidate_bias": d_n.sum(axis=0),
        }
        return d_params, Step(d_inner[:, :D] + d_both[:, :D], g * z + d_rh * r + d_both[:, D:])

    def reference(params, x):
        x, h = x
        gates = jnp.hstack([x, h]) @ params["gates"] + params["gates_bias"]
        r, z = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
        n = jnp.tanh(jnp.hstack([x, r * h]) @ params["candidate"] + params["candidate_bias"])
        return n + z * (h - n)


class soft_experts(Layer):
    """Every expert's output, weighted with the softmax of a router."""

    def forward(params, x):
        router, experts = params["router"], params["experts"]  # (D, E), (E, D, F)
        flat = rows(x)
        probs = probabilities(flat @ router)  # (N, E)
        outs = np.einsum("nd,edf->nef", flat, experts)
        y = np.einsum("ne,nef->nf", probs, outs).reshape(*x.shape[:-1], experts.shape[2])
        return y, (x, probs, outs, router, experts)

    def vjp(residuals, g):
        x, probs, outs, router, experts = residuals
        flat, g = rows(x), rows(g)
        d_probs = np.einsum("nf,nef->ne", g, outs)
        d_logits = probs * (d_probs - (d_probs * probs).sum(axis=-1, keepdims=True))
        d_outs = probs[:, :, None] * g[:, None, :]  # (N, E, F)
        d_x = np.einsum("nef,edf->nd", d_outs, experts) + d_logits @ router.T
        d_experts = np.einsum("nd,nef->edf", flat, d_outs)
        return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)

    def reference(params, x):
        probs = jax.nn.softmax(x @ params["router"], axis=-1)
        return jnp.einsum("...e,...d,edf->...f", probs, x, params["experts"])


class mixup(Layer):
    """y = share·a + (1 − share)·b."""

    def forward(params, x, *, share):
        return share * x.a + (1.0 - share) * x.b, share

    def vjp(share, g):
        return {}, Pair(share * g, (1.0 - share) * g)

    def reference(params, x, *, share):
        return x.b + share * (x.a - x.b)


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


MIX = {"weight": draw(25, 5, 5), "bias": draw(26, 5)}
PAIR = Pair(draw(27, 2, 3, 5), draw(28, 2, 3, 5))
GATED_MIX = (gated_mix, MIX, PAIR)


@plant(
    "gated_mix: the sigmoid's slope is taken at z, which is one already",
    *GATED_MIX,
    leaves="params.bias params.weight x.a",
    cause="wrong point",
)
def sigmoid_of_sigmoid(residuals, g):
    a, b, z, weight = residuals
    slope = sigmoid(z) * (1.0 - sigmoid(z))
    d_inner = g * (a - b) * slope
    d_params = {"weight": rows(a).T @ rows(d_inner), "bias": rows(d_inner).sum(axis=0)}
    return d_params, Pair(g * z + d_inner @ weight.T, g * (1.0 - z))


@plant("gated_mix: d_x is a plain tuple", *GATED_MIX, leaves="x", cause="structure")
def plain_tuple(residuals, g):
    d_params, d_x = gated_mix.vjp(residuals, g)
    return d_params, tuple(d_x)


@plant(
    "head_scale: the loop over the batch starts at one",
    head_scale,
    {"scale": draw(406, 3)},
    draw(407, 5, 2, 3, 7),
    leaves="params.scale",
    cause="slice kept",
)
def loop_starts_at_one(residuals, g):
    x, scale = residuals
    d_scale = np.zeros_like(scale)
    for b in range(1, len(x)):
        d_scale += (g[b] * x[b]).sum(axis=(0, 2))
    return {"scale": d_scale}, head_scale.vjp(residuals, g)[1]


EXPERTS = {"router": draw(506, 5, 3), "experts": draw(507, 3, 5, 7)}
ROWS = draw(508, 2, 13, 5)


def through_the_router(residuals, g):
    """Return the gradients of the logits and of the chosen experts' output."""
    _, probs, chosen, gate, out, _, _ = residuals
    d_gate = (g * out).sum(axis=1, keepdims=True)
    one_hot = (chosen[:, None] == np.arange(probs.shape[1])).astype(probs.dtype)
    return d_gate * gate * (one_hot - probs), g * gate


TOP1_GATE = (top1_gate, EXPERTS, ROWS)


@plant(
    "top1_gate: an expert keeps the last row that chose it",
    *TOP1_GATE,
    leaves="params.experts",
    cause="scatter",
)
def last_row_of_an_expert(residuals, g):
    x, _, chosen, *_, experts = residuals
    d_params, d_x = top1_gate.vjp(residuals, g)
    _, d_out = through_the_router(residuals, rows(g))
    d_experts = np.zeros_like(experts)
    for n, expert in enumerate(chosen):
        d_experts[expert] = np.outer(rows(x)[n], d_out[n])
    return d_params | {"experts": d_experts}, d_x


@plant(
    "top1_gate: the router gets no gradient",
    *TOP1_GATE,
    leaves="params.router",
    cause="never written",
)
def router_gets_nothing(residuals, g):
    d_params, d_x = top1_gate.vjp(residuals, g)
    return d_params | {"router": np.zeros_like(d_params["router"])}, d_x


GATE = {"squeeze": draw(1101, 5, 3), "excite": draw(1102, 3, 5)}
X = draw(1103, 2, 7, 5)
SQUEEZE_EXCITE = (squeeze_excite, GATE, X)


@plant(
    "squeeze_excite: what comes back through the mean is not divided by the times",
    *SQUEEZE_EXCITE,
    leaves="x",
    cause="wrong term",
)
def mean_is_taken_for_a_sum(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    d_h = (d_e @ excite.T) * (h > 0.0)
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


@plant(
    "squeeze_excite: the relu is passed as if it were the identity",
    *SQUEEZE_EXCITE,
    leaves="params.squeeze x",
    cause="missing factor",
)
def relu_without_a_slope(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    d_h = d_e @ excite.T
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None] / x.shape[1]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


@plant(
    "squeeze_excite: the relu lets through where the cotangent is positive",
    *SQUEEZE_EXCITE,
    leaves="params.squeeze x",
    cause="not linear in g",
)
def relu_of_the_cotangent(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    d_h = np.maximum(d_e @ excite.T, 0.0) * (h > 0.0)
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None] / x.shape[1]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


@plant(
    "squeeze_excite: the gates of all examples get the sum over all examples",
    *SQUEEZE_EXCITE,
    leaves="params.excite params.squeeze x",
    cause="edge shape",
)
def summed_over_the_batch_too(residuals, g):
    x, mean, h, z, squeeze, excite = residuals
    d_e = (g * x).sum(axis=(0, 1)) * z * (1.0 - z)
    d_h = (d_e @ excite.T) * (h > 0.0)
    d_x = g * z[:, None] + (d_h @ squeeze.T)[:, None] / x.shape[1]
    return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x


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


GRU_CELL = (gru_cell, CELL, STEP)


@plant(
    "gru_cell: tanh's slope from what goes into it",
    *GRU_CELL,
    leaves="params.candidate params.candidate_bias params.gates params.gates_bias x.h x.x",
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
    "gru_cell: h does not get what z lets through directly",
    *GRU_CELL,
    leaves="x.h",
    cause="missing term",
)
def no_direct_path(residuals, g):
    d_params, d_step = gru_cell.vjp(residuals, g)
    _, _, _, _, z, *_ = residuals
    return d_params, d_step._replace(h=d_step.h - g * z)


@plant(
    "gru_cell: the bias of the gates is made and not filled",
    *GRU_CELL,
    leaves="params.gates_bias",
    cause="never written",
)
def bias_of_the_gates_not_filled(residuals, g):
    d_params, d_step = gru_cell.vjp(residuals, g)
    return d_params | {"gates_bias": np.zeros_like(d_params["gates_bias"])}, d_step


SOFT_EXPERTS = {"router": draw(1113, 5, 3), "experts": draw(1114, 3, 5, 7)}
TOKENS = draw(1115, 2, 7, 5)
SOFT_EXPERTS_CASE = (soft_experts, SOFT_EXPERTS, TOKENS)


@plant(
    "soft_experts: x does not feel the router", *SOFT_EXPERTS_CASE, leaves="x", cause="missing term"
)
def no_path_through_the_router(residuals, g):
    _, probs, _, _, experts = residuals
    d_params, d_x = soft_experts.vjp(residuals, g)
    d_outs = probs[:, :, None] * rows(g)[:, None, :]
    return d_params, np.einsum("nef,edf->nd", d_outs, experts).reshape(d_x.shape)


@plant(
    "soft_experts: the probabilities weigh the experts' gradient twice",
    *SOFT_EXPERTS_CASE,
    leaves="params.experts",
    cause="extra factor",
)
def probabilities_twice(residuals, g):
    x, probs, *_ = residuals
    d_params, d_x = soft_experts.vjp(residuals, g)
    d_outs = probs[:, :, None] * rows(g)[:, None, :]
    d_experts = np.einsum("nd,ne,nef->edf", rows(x), probs, d_outs)
    return d_params | {"experts": d_experts}, d_x


@plant(
    "soft_experts: in the loop each expert overwrites what the one before gave to x",
    *SOFT_EXPERTS_CASE,
    leaves="x",
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


@plant(
    "mixup: a gets the share of b",
    mixup,
    {},
    Pair(draw(1308, 2, 7, 5), draw(1309, 2, 7, 5)),
    share=0.3,
    leaves="x.a x.b",
    cause="swapped",
)
def share_of_the_other(share, g):
    return {}, Pair((1.0 - share) * g, share * g)
