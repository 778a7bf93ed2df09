"""Gates, experts and mixtures: one part of the input weighs another."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.layers import gated, gelu, routed_experts, swiglu, top_k_router
from functional_lm.layers.routing.routed_experts import Routed
from functional_lm.numerics import rows, sigmoid, softmax

from .bug import Layer, Pair, draw, plant

ROWS = draw(1115, 2, 7, 5)


plant(
    gated,
    {},
    draw(1116, 2, 3, 14),
    """
    gate and value are returned in the other order
    x: misplaced
    - return {}, np.concatenate([d_a, g * phi], axis=-1)
    + return {}, np.concatenate([g * phi, d_a], axis=-1)

    the gate's cotangent leaves the value out
    x: missing factor
    - _, d_a = activation.vjp(inner, g * u)
    + _, d_a = activation.vjp(inner, g)
    """,
    activation=gelu,
)


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

    inputs = (
        {"weight": draw(25, 5, 5), "bias": draw(26, 5)},
        Pair(draw(27, 2, 3, 5), draw(28, 2, 3, 5)),
        {},
    )
    bugs = """
    the sigmoid's slope is taken at z, which is one already
    params.bias params.weight x.a: wrong point
    - d_inner = g * (a - b) * z * (1.0 - z)
    + d_inner = g * (a - b) * sigmoid(z) * (1.0 - sigmoid(z))

    d_x is a plain tuple
    x: structure
    - return d_params, Pair(g * z + d_inner @ weight.T, g * (1.0 - z))
    + return d_params, (g * z + d_inner @ weight.T, g * (1.0 - z))
    """


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

    inputs = ({"scale": draw(406, 3)}, draw(407, 5, 2, 3, 7), {})
    bugs = """
    the loop over the batch starts at one
    params.scale: slice kept
    - return {"scale": (g * x).sum(axis=(0, 1, 3))}, g * scale[:, None]
    + d_scale = np.zeros_like(scale)
    + for b in range(1, len(x)):
    +     d_scale += (g[b] * x[b]).sum(axis=(0, 2))
    + return {"scale": d_scale}, g * scale[:, None]

    the input is remembered by the layer and not in the residuals
    hidden state
    - return x * scale[:, None], (x, scale)
    + head_scale.x = x
    + return x * scale[:, None], scale
    - x, scale = residuals
    + x, scale = head_scale.x, residuals
    """


class top1_gate(Layer):
    """Each row goes to the expert that the router likes best, times that probability."""

    def forward(params, x):
        router, experts = params["router"], params["experts"]  # (D, E), (E, D, F)
        flat = rows(x)
        probs = softmax(flat @ router)  # (N, E)
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

    inputs = ({"router": draw(506, 5, 3), "experts": draw(507, 3, 5, 7)}, draw(508, 2, 13, 5), {})
    bugs = """
    an expert keeps the last row that chose it
    params.experts: scatter
    - np.add.at(d_experts, chosen, flat[:, :, None] * d_out[:, None, :])
    + for n, expert in enumerate(chosen):
    +     d_experts[expert] = np.outer(flat[n], d_out[n])

    the router gets no gradient
    params.router: never written
    - return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)
    + return {"router": np.zeros_like(router), "experts": d_experts}, d_x.reshape(x.shape)
    """


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

    inputs = ({"squeeze": draw(1101, 5, 3), "excite": draw(1102, 3, 5)}, draw(1103, 2, 7, 5), {})
    bugs = """
    what comes back through the mean is not divided by the times
    x: wrong term
    - d_x = g * z[:, None] + d_mean[:, None] / x.shape[1]
    + d_x = g * z[:, None] + d_mean[:, None]

    the relu is passed as if it were the identity
    params.squeeze x: missing factor
    - d_h = (d_e @ excite.T) * (h > 0.0)
    + d_h = d_e @ excite.T

    the relu lets through where the cotangent is positive
    params.squeeze x: not linear in g
    - d_h = (d_e @ excite.T) * (h > 0.0)
    + d_h = np.maximum(d_e @ excite.T, 0.0) * (h > 0.0)

    the gates of all examples get the sum over all examples
    params.excite params.squeeze x: edge shape
    - d_e = (g * x).sum(axis=1) * z * (1.0 - z)
    + d_e = (g * x).sum(axis=(0, 1)) * z * (1.0 - z)
    """


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

    inputs = (
        {
            "gates": draw(1107, 8, 10),
            "gates_bias": draw(1108, 10),
            "candidate": draw(1109, 8, 5),
            "candidate_bias": draw(1110, 5),
        },
        Step(draw(1111, 7, 3), draw(1112, 7, 5)),
        {},
    )
    bugs = """
    tanh's slope from what goes into it
    params.candidate params.candidate_bias params.gates params.gates_bias x.h x.x: wrong point
    - return y, (both, inner, h, r, z, n, params["gates"], params["candidate"])
    + a = inner @ params["candidate"] + params["candidate_bias"]
    + return y, (both, inner, h, r, z, n, a, params["gates"], params["candidate"])
    - both, inner, h, r, z, n, gates, candidate = residuals
    + both, inner, h, r, z, n, a, gates, candidate = residuals
    - d_n = g * (1.0 - z) * (1.0 - n * n)
    + d_n = g * (1.0 - z) * (1.0 - a * a)

    h does not get what z lets through directly
    x.h: missing term
    - return d_params, Step(d_inner[:, :D] + d_both[:, :D], g * z + d_rh * r + d_both[:, D:])
    + return d_params, Step(d_inner[:, :D] + d_both[:, :D], d_rh * r + d_both[:, D:])

    the bias of the gates is made and not filled
    params.gates_bias: never written
    - "gates_bias": d_gates.sum(axis=0),
    + "gates_bias": np.zeros_like(d_gates[0]),
    """


class soft_experts(Layer):
    """Every expert's output, weighted with the softmax of a router."""

    def forward(params, x):
        router, experts = params["router"], params["experts"]  # (D, E), (E, D, F)
        flat = rows(x)
        probs = softmax(flat @ router)  # (N, E)
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

    inputs = ({"router": draw(1113, 5, 3), "experts": draw(1114, 3, 5, 7)}, ROWS, {})
    bugs = """
    x does not feel the router
    x: missing term
    - d_x = np.einsum("nef,edf->nd", d_outs, experts) + d_logits @ router.T
    + d_x = np.einsum("nef,edf->nd", d_outs, experts)

    the probabilities weigh the experts' gradient twice
    params.experts: extra factor
    - d_experts = np.einsum("nd,nef->edf", flat, d_outs)
    + d_experts = np.einsum("nd,ne,nef->edf", flat, probs, d_outs)

    in the loop each expert overwrites what the one before gave to x
    x: slice kept
    - d_x = np.einsum("nef,edf->nd", d_outs, experts) + d_logits @ router.T
    + for e, expert in enumerate(experts):
    +     d_x = d_outs[:, e] @ expert.T
    + d_x += d_logits @ router.T
    """


class mixup(Layer):
    """y = share·a + (1 − share)·b."""

    def forward(params, x, *, share):
        return share * x.a + (1.0 - share) * x.b, share

    def vjp(share, g):
        return {}, Pair(share * g, (1.0 - share) * g)

    def reference(params, x, *, share):
        return x.b + share * (x.a - x.b)

    inputs = ({}, Pair(draw(1308, 2, 7, 5), draw(1309, 2, 7, 5)), {"share": 0.3})
    bugs = """
    a gets the share of b
    x.a x.b: swapped
    - return {}, Pair(share * g, (1.0 - share) * g)
    + return {}, Pair((1.0 - share) * g, share * g)

    three results, one for each input
    structure
    - return {}, Pair(share * g, (1.0 - share) * g)
    + return {}, share * g, (1.0 - share) * g
    """


LOGITS = draw(1140, 13, 5)

plant(
    top_k_router,
    {},
    LOGITS,
    """
    the auxiliary loss has no backward
    x: missing term
    - d_logits = d_auxiliary * (probs * slope)
    + d_logits = np.zeros_like(probs)

    the weights of the chosen are not normalised in the backward
    x: missing term
    - d_logits[at_chosen] += softmax_vjp(weights, rows(d_weights))
    + d_logits[at_chosen] += weights * rows(d_weights)

    the cotangents of the chosen go to the first k experts
    x: misplaced
    - at_chosen = np.arange(N)[:, None], rows(experts)
    + at_chosen = np.arange(N)[:, None], np.arange(experts.shape[-1])[None]
    """,
    experts=top_k_router.choose(LOGITS, k=2),
    balance_loss=2.0,
    z_loss=0.5,
)

plant(
    routed_experts,
    {"up": draw(1141, 4, 3, 10), "down": draw(1142, 4, 5, 3)},
    Routed(draw(1143, 11, 3), draw(1144, 11, 2)),
    """
    the weights get their cotangents in the order of the experts
    x.weights: misplaced
    - d_weights[order] = row_dot(d_weighted, hidden)
    + d_weights[:] = row_dot(d_weighted, hidden)

    the weight of an expert does not reach its second matrix
    params.down: missing factor
    - d_down = _outer_products(weights * hidden, g_copies, counts)
    + d_down = _outer_products(hidden, g_copies, counts)

    the mean over the copies of a row, not their sum
    x.x: constant factor
    - d_x = d_x.reshape(*shape[:-1], D)
    + d_x = d_x.reshape(*shape[:-1], D) / k

    one expert too few in the backward
    params.up: written in part
    - d_up = _outer_products(copies, d_h, counts)
    + d_up = _outer_products(copies, d_h, counts)
    + d_up[-1] = 0.0
    """,
    experts=np.arange(22).reshape(11, 2) % 4,
    activation=swiglu,
)
