"""Layers that a researcher brings along: norms, gates, small networks.

Each class is a layer: ``forward`` and ``vjp`` in NumPy, ``reference`` in JAX.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.numerics import sigmoid

from .bug import rows


class layer_norm:
    """y = x̂·s + b, where x̂ is the row less its mean, over its deviation (Ba et al. 2016)."""

    class Residuals(NamedTuple):
        centred: Any  # (..., D)
        rstd: Any  # (..., 1)
        scale: Any  # (D,)

    @staticmethod
    def forward(params, x, *, eps=1e-5):
        centred = x - x.mean(axis=-1, keepdims=True)
        rstd = 1.0 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        y = centred * rstd * params["scale"] + params["bias"]
        return y, layer_norm.Residuals(centred, rstd, params["scale"])

    @staticmethod
    def vjp(residuals, g):
        centred, rstd, scale = residuals
        x_hat = centred * rstd
        h = g * scale
        mean_h = h.mean(axis=-1, keepdims=True)
        mean_hx = (h * x_hat).mean(axis=-1, keepdims=True)
        d_params = {"scale": rows(g * x_hat).sum(axis=0), "bias": rows(g).sum(axis=0)}
        return d_params, rstd * (h - mean_h - x_hat * mean_hx)

    @staticmethod
    def reference(params, x, *, eps=1e-5):
        return jax.nn.standardize(x, epsilon=eps) * params["scale"] + params["bias"]


class batch_norm:
    """Each column less its mean over the batch, over its deviation (Ioffe and Szegedy 2015)."""

    @staticmethod
    def forward(params, x, *, eps=1e-5):
        centred = x - x.mean(axis=0)
        rstd = 1.0 / np.sqrt((centred * centred).mean(axis=0) + eps)  # (D,)
        x_hat = centred * rstd
        return x_hat * params["scale"] + params["bias"], (x_hat, rstd, params["scale"])

    @staticmethod
    def vjp(residuals, g):
        x_hat, rstd, scale = residuals
        d_bias = g.sum(axis=0)
        d_scale = (g * x_hat).sum(axis=0)
        d_x = scale * rstd * (g - d_bias / len(g) - x_hat * (d_scale / len(g)))
        return {"scale": d_scale, "bias": d_bias}, d_x

    @staticmethod
    def reference(params, x, *, eps=1e-5):
        return jax.nn.standardize(x, axis=0, epsilon=eps) * params["scale"] + params["bias"]


class l2_normalize:
    """y = x/‖x‖ for each row."""

    @staticmethod
    def forward(params, x):
        norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        return x / norm, (x, norm)

    @staticmethod
    def vjp(residuals, g):
        x, norm = residuals
        unit = x / norm
        return {}, (g - unit * (g * unit).sum(axis=-1, keepdims=True)) / norm

    @staticmethod
    def reference(params, x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class log_softmax:
    """y = x − log Σ exp(x)."""

    @staticmethod
    def forward(params, x):
        shifted = x - x.max(axis=-1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return y, np.exp(y)

    @staticmethod
    def vjp(probs, g):
        return {}, g - probs * g.sum(axis=-1, keepdims=True)

    @staticmethod
    def reference(params, x):
        return jax.nn.log_softmax(x, axis=-1)


class softcap:
    """y = cap·tanh(x/cap), the cap on the logits of Gemma 2."""

    @staticmethod
    def forward(params, x, *, cap):
        t = np.tanh(x / cap)
        return cap * t, (x, t, cap)

    @staticmethod
    def vjp(residuals, g):
        _, t, _ = residuals
        return {}, g * (1.0 - t * t)

    @staticmethod
    def reference(params, x, *, cap):
        return cap * jnp.tanh(x / cap)


class dynamic_tanh:
    """y = gamma·tanh(alpha·x) + beta with one number alpha (Zhu et al. 2025)."""

    class Residuals(NamedTuple):
        x: Any
        t: Any
        alpha: Any
        gamma: Any

    @staticmethod
    def forward(params, x):
        t = np.tanh(params["alpha"] * x)
        y = params["gamma"] * t + params["beta"]
        return y, dynamic_tanh.Residuals(x, t, params["alpha"], params["gamma"])

    @staticmethod
    def vjp(residuals, g):
        x, t, alpha, gamma = residuals
        d_inner = g * gamma * (1.0 - t * t)
        d_params = {
            "alpha": (d_inner * x).sum(),
            "gamma": rows(g * t).sum(axis=0),
            "beta": rows(g).sum(axis=0),
        }
        return d_params, d_inner * alpha

    @staticmethod
    def reference(params, x):
        return params["gamma"] * jnp.tanh(params["alpha"] * x) + params["beta"]


class tanh_mlp:
    """y = tanh(x·W₁ + b₁)·W₂ + b₂."""

    @staticmethod
    def forward(params, x):
        up, down = params["up"], params["down"]
        h = np.tanh(x @ up["weight"] + up["bias"])
        return h @ down["weight"] + down["bias"], (x, h, up["weight"], down["weight"])

    @staticmethod
    def vjp(residuals, g):
        x, h, up, down = residuals
        d_a = (g @ down.T) * (1.0 - h * h)
        d_up = {"weight": rows(x).T @ rows(d_a), "bias": rows(d_a).sum(axis=0)}
        d_down = {"weight": rows(h).T @ rows(g), "bias": rows(g).sum(axis=0)}
        return {"up": d_up, "down": d_down}, d_a @ up.T

    @staticmethod
    def reference(params, x):
        h = jnp.tanh(x @ params["up"]["weight"] + params["up"]["bias"])
        return h @ params["down"]["weight"] + params["down"]["bias"]


class tied_autoencoder:
    """y = tanh(x·W)·Wᵀ: one weight encodes and decodes."""

    @staticmethod
    def forward(params, x):
        weight = params["weight"]
        h = np.tanh(x @ weight)
        return h @ weight.T, (x, h, weight)

    @staticmethod
    def vjp(residuals, g):
        x, h, weight = residuals
        d_a = (g @ weight) * (1.0 - h * h)
        return {"weight": rows(x).T @ rows(d_a) + rows(g).T @ rows(h)}, d_a @ weight.T

    @staticmethod
    def reference(params, x):
        return jnp.tanh(x @ params["weight"]) @ params["weight"].T


class lora:
    """y = x·W + (alpha/R)·(x·down)·up: an adapter of rank R (Hu et al. 2021)."""

    @staticmethod
    def forward(params, x, *, alpha):
        weight, down, up = params["weight"], params["down"], params["up"]
        scaling = alpha / down.shape[1]
        low = x @ down  # (..., R)
        return x @ weight + scaling * (low @ up), (x, low, weight, down, up, scaling)

    @staticmethod
    def vjp(residuals, g):
        x, low, weight, down, up, scaling = residuals
        d_low = scaling * (g @ up.T)
        d_params = {
            "weight": rows(x).T @ rows(g),
            "down": rows(x).T @ rows(d_low),
            "up": scaling * (rows(low).T @ rows(g)),
        }
        return d_params, g @ weight.T + d_low @ down.T

    @staticmethod
    def reference(params, x, *, alpha):
        adapter = params["down"] @ params["up"] * (alpha / params["down"].shape[1])
        return x @ (params["weight"] + adapter)


class Pair(NamedTuple):
    """The input of `gated_mix`."""

    a: Any  # (..., D)
    b: Any  # (..., D)


class gated_mix:
    """y = z·a + (1 − z)·b with z = σ(a·W + bias), as in highway networks."""

    @staticmethod
    def forward(params, x):
        a, b = x
        z = sigmoid(a @ params["weight"] + params["bias"])
        return z * a + (1.0 - z) * b, (a, b, z, params["weight"])

    @staticmethod
    def vjp(residuals, g):
        a, b, z, weight = residuals
        d_inner = g * (a - b) * z * (1.0 - z)
        d_params = {"weight": rows(a).T @ rows(d_inner), "bias": rows(d_inner).sum(axis=0)}
        return d_params, Pair(g * z + d_inner @ weight.T, g * (1.0 - z))

    @staticmethod
    def reference(params, x):
        a, b = x
        z = jax.nn.sigmoid(a @ params["weight"] + params["bias"])
        return z * a + (1 - z) * b
