"""Layers that a researcher brings along: over time, heads, tables and experts; and a loss.

Each class is a layer: ``forward`` and ``vjp`` in NumPy, ``reference`` in JAX.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.numerics import softmax

from .bug import rows


class leaky_scan:
    """hₜ = decay·hₜ₋₁ + xₜ from h = 0, and y is h."""

    @staticmethod
    def forward(params, x):
        decay = params["decay"]  # (D,)
        h = np.zeros_like(x)  # (B, T, D)
        for t in range(x.shape[1]):
            h[:, t] = x[:, t] if t == 0 else decay * h[:, t - 1] + x[:, t]
        before = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
        return h, (before, decay)

    @staticmethod
    def vjp(residuals, g):
        before, decay = residuals
        d_h = g.copy()
        for t in reversed(range(g.shape[1] - 1)):
            d_h[:, t] += decay * d_h[:, t + 1]
        return {"decay": rows(d_h * before).sum(axis=0)}, d_h

    @staticmethod
    def reference(params, x):
        def step(h, x_t):
            h = params["decay"] * h + x_t
            return h, h

        _, h = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))
        return h.swapaxes(0, 1)


class causal_conv:
    """yₜ = Σₖ weightₖ·xₜ₋ₖ + bias, each channel for itself."""

    @staticmethod
    def forward(params, x):
        weight = params["weight"]  # (W, D)
        lags = len(weight)
        past = np.zeros((x.shape[0], lags - 1, x.shape[2]), x.dtype)
        padded = np.concatenate([past, x], axis=1)
        y = np.zeros_like(x) + params["bias"]
        for k in range(lags):
            y += weight[k] * lagged(padded, lags, k)
        return y, (padded, weight)

    @staticmethod
    def vjp(residuals, g):
        padded, weight = residuals
        T = g.shape[1]
        d_weight = np.zeros_like(weight)
        d_x = np.zeros_like(g)
        for k in range(len(weight)):
            d_weight[k] = rows(g * lagged(padded, len(weight), k)).sum(axis=0)
            d_x[:, : max(T - k, 0)] += weight[k] * g[:, k:]
        return {"weight": d_weight, "bias": rows(g).sum(axis=0)}, d_x

    @staticmethod
    def reference(params, x):
        shifted = [
            jnp.pad(x, ((0, 0), (k, 0), (0, 0)))[:, : x.shape[1]]
            for k in range(len(params["weight"]))
        ]
        return jnp.einsum("kd,kbtd->btd", params["weight"], jnp.stack(shifted)) + params["bias"]


def lagged(padded, lags, k):
    """Return x delayed by k steps, out of x with ``lags − 1`` zeros before it."""
    first = lags - 1 - k
    return padded[:, first : first + padded.shape[1] - lags + 1]


class alibi:
    """Causal attention weights: softmax of scores less slope·distance (Press et al. 2022)."""

    SHARES_MEMORY = "y is the residual"

    @staticmethod
    def forward(params, x):
        slope = params["slope"]  # (H,)
        T, _, S = x.shape[1:]  # (B, T, H, S)
        distance = (np.arange(T)[:, None, None] - np.arange(S)).astype(x.dtype)  # (T, 1, S)
        scores = x - slope[:, None] * distance
        probs = softmax(np.where(distance >= 0, scores, -math.inf))
        return probs, (probs, distance)

    @staticmethod
    def vjp(residuals, g):
        probs, distance = residuals
        d_scores = probs * (g - (g * probs).sum(axis=-1, keepdims=True))
        return {"slope": -(d_scores * distance).sum(axis=(0, 1, 3))}, d_scores

    @staticmethod
    def reference(params, x):
        distance = np.arange(x.shape[1])[:, None, None] - np.arange(x.shape[3])
        scores = x - params["slope"][:, None] * distance
        return jax.nn.softmax(jnp.where(distance >= 0, scores, -jnp.inf), axis=-1)


class head_scale:
    """Each head times its own number."""

    @staticmethod
    def forward(params, x):
        scale = params["scale"]  # (H,)
        return x * scale[:, None], (x, scale)  # (B, T, H, K)

    @staticmethod
    def vjp(residuals, g):
        x, scale = residuals
        return {"scale": (g * x).sum(axis=(0, 1, 3))}, g * scale[:, None]

    @staticmethod
    def reference(params, x):
        return jnp.einsum("bthk,h->bthk", x, params["scale"])


class position_embedding:
    """The row of each token plus the row of its position."""

    @staticmethod
    def forward(params, x):
        tokens, positions = params["tokens"], params["positions"]
        return tokens[x] + positions[: x.shape[1]], (x, tokens, positions)

    @staticmethod
    def vjp(residuals, g):
        x, tokens, positions = residuals
        d_tokens = np.zeros_like(tokens)
        np.add.at(d_tokens, x, g)
        d_positions = np.zeros_like(positions)
        d_positions[: x.shape[1]] = g.sum(axis=0)
        return {"tokens": d_tokens, "positions": d_positions}, None

    @staticmethod
    def reference(params, x):
        return jnp.take(params["tokens"], x, axis=0) + params["positions"][: x.shape[1]]


class top1_gate:
    """Each row goes to the expert that the router likes best, times that probability."""

    @staticmethod
    def forward(params, x):
        router, experts = params["router"], params["experts"]  # (D, E), (E, D, F)
        flat = rows(x)
        probs = softmax(flat @ router)  # (N, E)
        chosen = probs.argmax(axis=-1)  # (N,)
        gate = np.take_along_axis(probs, chosen[:, None], axis=1)  # (N, 1)
        out = np.einsum("nd,ndf->nf", flat, experts[chosen])
        y = (gate * out).reshape(*x.shape[:-1], out.shape[1])
        return y, (x, probs, chosen, gate, out, router, experts)

    @staticmethod
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

    @staticmethod
    def reference(params, x):
        probs = jax.nn.softmax(x @ params["router"], axis=-1)
        best = jax.nn.one_hot(probs.argmax(axis=-1), probs.shape[-1], dtype=x.dtype)
        return jnp.einsum("...e,...e,...d,edf->...f", best, probs, x, params["experts"])


class mse:
    """The mean of (x − targets)²."""

    @staticmethod
    def forward(params, x, *, targets):
        difference = x - targets.astype(x.dtype)
        return (difference * difference).mean(), difference

    @staticmethod
    def vjp(difference, g):
        return {}, g * (2.0 / difference.size) * difference

    @staticmethod
    def reference(params, x, *, targets):
        return jnp.mean(jnp.square(x - jnp.asarray(targets, x.dtype)))
