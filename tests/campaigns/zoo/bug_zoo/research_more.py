"""More layers that a researcher brings along: norms, gates, small networks.

Each class is a layer: ``forward`` and ``vjp`` in NumPy, ``reference`` in JAX.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.numerics import sigmoid, softmax

from .bug import rows
from .research_layers import Pair


class group_norm:
    """Each group of channels less its mean over time and group, over its deviation."""

    @staticmethod
    def forward(params, x, *, n_groups, eps=1e-5):
        grouped = x.reshape(*x.shape[:2], n_groups, x.shape[2] // n_groups)  # (B, T, G, C)
        centred = grouped - grouped.mean(axis=(1, 3), keepdims=True)
        rstd = 1.0 / np.sqrt((centred * centred).mean(axis=(1, 3), keepdims=True) + eps)
        x_hat = centred * rstd
        y = x_hat.reshape(x.shape) * params["scale"] + params["bias"]
        return y, (x_hat, rstd, params["scale"])

    @staticmethod
    def vjp(residuals, g):
        x_hat, rstd, scale = residuals
        h = (g * scale).reshape(x_hat.shape)
        mean_h = h.mean(axis=(1, 3), keepdims=True)
        mean_hx = (h * x_hat).mean(axis=(1, 3), keepdims=True)
        d_x = rstd * (h - mean_h - x_hat * mean_hx)
        d_scale = rows(g * x_hat.reshape(g.shape)).sum(axis=0)
        return {"scale": d_scale, "bias": rows(g).sum(axis=0)}, d_x.reshape(g.shape)

    @staticmethod
    def reference(params, x, *, n_groups, eps=1e-5):
        grouped = jnp.stack(jnp.split(x, n_groups, axis=-1))  # (G, B, T, C)
        normal = jax.nn.standardize(grouped, axis=(2, 3), epsilon=eps)
        return jnp.concatenate(list(normal), axis=-1) * params["scale"] + params["bias"]


class weight_norm:
    """y = x·W, where each column of W is a direction over its norm, times a gain."""

    @staticmethod
    def forward(params, x):
        direction, gain = params["direction"], params["gain"]  # (D, F), (F,)
        norm = np.sqrt((direction * direction).sum(axis=0))
        unit = direction / norm
        return x @ (gain * unit), (x, unit, norm, gain)

    @staticmethod
    def vjp(residuals, g):
        x, unit, norm, gain = residuals
        d_weight = rows(x).T @ rows(g)
        d_unit = d_weight * gain
        d_direction = (d_unit - unit * (d_unit * unit).sum(axis=0)) / norm
        d_params = {"direction": d_direction, "gain": (d_weight * unit).sum(axis=0)}
        return d_params, g @ (gain * unit).T

    @staticmethod
    def reference(params, x):
        norm = jnp.linalg.norm(params["direction"], axis=0)
        return x @ (params["direction"] / norm) * params["gain"]


GELU_INNER = math.sqrt(2.0 / math.pi)
GELU_CUBE = 0.044715


class gelu_mlp:
    """y = gelu(x·up + up_bias)·down, with the gelu in its tanh form."""

    @staticmethod
    def forward(params, x):
        a = x @ params["up"] + params["up_bias"]
        t = np.tanh(GELU_INNER * (a + GELU_CUBE * a * a * a))
        h = 0.5 * a * (1.0 + t)
        return h @ params["down"], (x, a, t, h, params["up"], params["down"])

    @staticmethod
    def vjp(residuals, g):
        x, a, t, h, up, down = residuals
        d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * a * a)
        slope = 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * d_inner
        d_a = (g @ down.T) * slope
        d_params = {
            "up": rows(x).T @ rows(d_a),
            "up_bias": rows(d_a).sum(axis=0),
            "down": rows(h).T @ rows(g),
        }
        return d_params, d_a @ up.T

    @staticmethod
    def reference(params, x):
        h = jax.nn.gelu(x @ params["up"] + params["up_bias"], approximate=True)
        return h @ params["down"]


class layer_scale:
    """y = x + gamma·tanh(x·W): a residual branch with a scale for each channel."""

    @staticmethod
    def forward(params, x):
        weight, gamma = params["weight"], params["gamma"]
        t = np.tanh(x @ weight)
        return x + gamma * t, (x, t, weight, gamma)

    @staticmethod
    def vjp(residuals, g):
        x, t, weight, gamma = residuals
        d_a = g * gamma * (1.0 - t * t)
        d_params = {"weight": rows(x).T @ rows(d_a), "gamma": rows(g * t).sum(axis=0)}
        return d_params, g + d_a @ weight.T

    @staticmethod
    def reference(params, x):
        return x + jnp.tanh(x @ params["weight"]) * params["gamma"]


class softplus:
    """y = log(1 + exp(beta·x))/beta."""

    @staticmethod
    def forward(params, x, *, beta):
        z = beta * x
        y = (np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))) / beta
        return y, (x, beta)

    @staticmethod
    def vjp(residuals, g):
        x, beta = residuals
        return {}, g * sigmoid(beta * x)

    @staticmethod
    def reference(params, x, *, beta):
        return jax.nn.softplus(beta * x) / beta


class squeeze_excite:
    """Each channel times a gate, which a small network makes of the means over time."""

    @staticmethod
    def forward(params, x):
        squeeze, excite = params["squeeze"], params["excite"]  # (D, R), (R, D)
        mean = x.mean(axis=1)  # (B, D)
        h = np.maximum(mean @ squeeze, 0.0)  # (B, R)
        z = sigmoid(h @ excite)  # (B, D)
        return x * z[:, None], (x, mean, h, z, squeeze, excite)

    @staticmethod
    def vjp(residuals, g):
        x, mean, h, z, squeeze, excite = residuals
        d_e = (g * x).sum(axis=1) * z * (1.0 - z)
        d_h = (d_e @ excite.T) * (h > 0.0)
        d_mean = d_h @ squeeze.T
        d_x = g * z[:, None] + d_mean[:, None] / x.shape[1]
        return {"squeeze": mean.T @ d_h, "excite": h.T @ d_e}, d_x

    @staticmethod
    def reference(params, x):
        h = jax.nn.relu(x.mean(axis=1, keepdims=True) @ params["squeeze"])
        return x * jax.nn.sigmoid(h @ params["excite"])


class bilinear:
    """yₖ = a·Wₖ·b for the two inputs a and b."""

    @staticmethod
    def forward(params, x):
        a, b = x
        y = np.einsum("...i,ijk,...j->...k", a, params["weight"], b)
        return y, (a, b, params["weight"])

    @staticmethod
    def vjp(residuals, g):
        a, b, weight = residuals
        d_weight = np.einsum("ni,nj,nk->ijk", rows(a), rows(b), rows(g))
        d_a = np.einsum("...k,ijk,...j->...i", g, weight, b)
        d_b = np.einsum("...k,ijk,...i->...j", g, weight, a)
        return {"weight": d_weight}, Pair(d_a, d_b)

    @staticmethod
    def reference(params, x):
        products = x.a[..., :, None] * x.b[..., None, :]
        return jnp.tensordot(products, params["weight"], axes=2)


class Step(NamedTuple):
    """The input of `gru_cell`."""

    x: Any  # (B, D)
    h: Any  # (B, H)


class gru_cell:
    """h' = (1 − z)·n + z·h, with a reset gate r inside of n (Cho et al. 2014)."""

    @staticmethod
    def forward(params, x):
        x, h = x
        both = np.concatenate([x, h], axis=-1)
        r, z = np.split(sigmoid(both @ params["gates"] + params["gates_bias"]), 2, axis=-1)
        inner = np.concatenate([x, r * h], axis=-1)
        n = np.tanh(inner @ params["candidate"] + params["candidate_bias"])
        y = (1.0 - z) * n + z * h
        return y, (both, inner, h, r, z, n, params["gates"], params["candidate"])

    @staticmethod
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

    @staticmethod
    def reference(params, x):
        x, h = x
        gates = jnp.hstack([x, h]) @ params["gates"] + params["gates_bias"]
        r, z = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
        n = jnp.tanh(jnp.hstack([x, r * h]) @ params["candidate"] + params["candidate_bias"])
        return n + z * (h - n)


class soft_experts:
    """Every expert's output, weighted with the softmax of a router."""

    @staticmethod
    def forward(params, x):
        router, experts = params["router"], params["experts"]  # (D, E), (E, D, F)
        flat = rows(x)
        probs = softmax(flat @ router)  # (N, E)
        outs = np.einsum("nd,edf->nef", flat, experts)
        y = np.einsum("ne,nef->nf", probs, outs).reshape(*x.shape[:-1], experts.shape[2])
        return y, (x, probs, outs, router, experts)

    @staticmethod
    def vjp(residuals, g):
        x, probs, outs, router, experts = residuals
        flat, g = rows(x), rows(g)
        d_probs = np.einsum("nf,nef->ne", g, outs)
        d_logits = probs * (d_probs - (d_probs * probs).sum(axis=-1, keepdims=True))
        d_outs = probs[:, :, None] * g[:, None, :]  # (N, E, F)
        d_x = np.einsum("nef,edf->nd", d_outs, experts) + d_logits @ router.T
        d_experts = np.einsum("nd,nef->edf", flat, d_outs)
        return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)

    @staticmethod
    def reference(params, x):
        probs = jax.nn.softmax(x @ params["router"], axis=-1)
        return jnp.einsum("...e,...d,edf->...f", probs, x, params["experts"])
