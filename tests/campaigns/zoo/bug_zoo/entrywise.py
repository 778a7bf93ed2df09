"""Activations, softmax and dropout."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, draw, plant_in, probabilities, rows, sigmoid, softmax_vjp


class softmax(Layer):
    """y = exp(x)/Σ exp(x) for each row."""

    def forward(params, x):
        probs = probabilities(x)
        return probs * 1, (probs,)

    def vjp(residuals, g):
        (probs,) = residuals
        return {}, softmax_vjp(probs, g)

    def reference(params, x):
        return jax.nn.softmax(x, axis=-1)


class silu(Layer):
    """y = x·σ(x)."""

    def forward(params, x):
        sigma = sigmoid(x)
        return x * sigma, (x, sigma)

    def vjp(residuals, g):
        x, sigma = residuals
        return {}, g * sigma * (1.0 + x * (1.0 - sigma))

    def reference(params, x):
        return jax.nn.silu(x)


class dropout(Layer):
    """Drops entries at a rate and scales the others up; which ones follows from a key."""

    def drawn(shape, rate, key):
        rng = np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))
        return rng.random(shape, dtype=np.float32) < 1 - rate

    def forward(params, x, *, rate, key):
        multiplier = dropout.drawn(x.shape, rate, key).astype(x.dtype) / (1.0 - rate)
        return x * multiplier, multiplier

    def vjp(multiplier, g):
        return {}, g * multiplier

    def reference(params, x, *, rate, key):
        return jnp.where(dropout.drawn(x.shape, rate, key), x / (1 - rate), 0)


class log_softmax(Layer):
    """y = x − log Σ exp(x)."""

    def forward(params, x):
        shifted = x - x.max(axis=-1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return y, np.exp(y)

    def vjp(probs, g):
        return {}, g - probs * g.sum(axis=-1, keepdims=True)

    def reference(params, x):
        return jax.nn.log_softmax(x, axis=-1)


class softcap(Layer):
    """y = cap·tanh(x/cap), the cap on the logits of Gemma 2."""

    def forward(params, x, *, cap):
        t = np.tanh(x / cap)
        return cap * t, (x, t, cap)

    def vjp(residuals, g):
        _, t, _ = residuals
        return {}, g * (1.0 - t * t)

    def reference(params, x, *, cap):
        return cap * jnp.tanh(x / cap)


class dynamic_tanh(Layer):
    """y = gamma·tanh(alpha·x) + beta with one number alpha (Zhu et al. 2025)."""

    class Residuals(NamedTuple):
        x: Any
        t: Any
        alpha: Any
        gamma: Any

    def forward(params, x):
        t = np.tanh(params["alpha"] * x)
        y = params["gamma"] * t + params["beta"]
        return y, dynamic_tanh.Residuals(x, t, params["alpha"], params["gamma"])

    def vjp(residuals, g):
        x, t, alpha, gamma = residuals
        d_inner = g * gamma * (1.0 - t * t)
        d_params = {
            "alpha": (d_inner * x).sum(),
            "gamma": rows(g * t).sum(axis=0),
            "beta": rows(g).sum(axis=0),
        }
        return d_params, d_inner * alpha

    def reference(params, x):
        return params["gamma"] * jnp.tanh(params["alpha"] * x) + params["beta"]


class softplus(Layer):
    """y = log(1 + exp(beta·x))/beta."""

    def forward(params, x, *, beta):
        z = beta * x
        y = (np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))) / beta
        return y, (x, beta)

    def vjp(residuals, g):
        x, beta = residuals
        return {}, g * sigmoid(beta * x)

    def reference(params, x, *, beta):
        return jax.nn.softplus(beta * x) / beta


class temperature_softmax(Layer):
    """The softmax of x over a learned temperature."""

    SHARES_MEMORY = "y is the residual"

    def forward(params, x):
        temperature = params["temperature"]
        probs = probabilities(x / temperature)
        return probs, (x, probs, temperature)

    def vjp(residuals, g):
        x, probs, temperature = residuals
        d_scores = softmax_vjp(probs, g)
        d_temperature = -(d_scores * x).sum() / (temperature * temperature)
        return {"temperature": d_temperature}, d_scores / temperature

    def reference(params, x):
        return jax.nn.softmax(x / params["temperature"], axis=-1)


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


@plant(
    "softmax: the sum is added where it is subtracted",
    softmax,
    {},
    draw(301, 2, 3, 7),
    leaves="x",
    cause="wrong term",
)
def sum_is_added(residuals, g):
    (probs,) = residuals
    return {}, probs * (g + (g * probs).sum(axis=-1, keepdims=True))


@plant(
    "log_softmax: g is not summed over the classes",
    log_softmax,
    {},
    draw(302, 2, 3, 7),
    leaves="x",
    cause="missing sum",
)
def not_summed_over_the_classes(probs, g):
    return {}, g - probs * g


@plant(
    "log_softmax: the probabilities are computed anew without the maximum",
    log_softmax,
    {},
    draw(303, 5, 7, scale=1000.0),
    forward=lambda params, x: (log_softmax.forward(params, x)[0], x),
    leaves="x",
    cause="not finite",
)
def overflows(x, g):
    e = np.exp(x)
    probs = e / e.sum(axis=-1, keepdims=True)
    return {}, g - probs * g.sum(axis=-1, keepdims=True)


@plant(
    "softcap: the slope of tanh is taken at x and not at x/cap",
    softcap,
    {},
    draw(304, 2, 3, 5, scale=2.0),
    cap=3.0,
    leaves="x",
    cause="wrong point",
)
def slope_at_x(residuals, g):
    x, _, _ = residuals
    return {}, g * (1.0 - np.tanh(x) ** 2)


@plant(
    "softcap: large cotangents are clipped",
    softcap,
    {},
    draw(305, 2, 3, 5),
    cap=3.0,
    leaves="x",
    cause="not linear in g",
)
def clipped(residuals, g):
    _, t, _ = residuals
    return {}, np.clip(g, -1.0, 1.0) * (1.0 - t * t)


DYNAMIC = {"alpha": np.array(0.7), "gamma": draw(306, 5), "beta": draw(307, 5)}
X = draw(308, 2, 3, 5)
DYNAMIC_TANH = (dynamic_tanh, DYNAMIC, X)


@plant(
    "dynamic_tanh: alpha does not get the inner derivative x",
    *DYNAMIC_TANH,
    leaves="params.alpha",
    cause="missing factor",
)
def no_inner_derivative(residuals, g):
    _, t, _, gamma = residuals
    d_params, d_x = dynamic_tanh.vjp(residuals, g)
    return d_params | {"alpha": (g * gamma * (1.0 - t * t)).sum()}, d_x


@plant(
    "dynamic_tanh: gamma stays in its own gradient",
    *DYNAMIC_TANH,
    leaves="params.gamma",
    cause="extra factor",
    says=("gamma",),
)
def gamma_stays(residuals, g):
    _, t, _, gamma = residuals
    d_params, d_x = dynamic_tanh.vjp(residuals, g)
    return d_params | {"gamma": rows(g * gamma * t).sum(axis=0)}, d_x


@plant(
    "dropout: the mask without the scale 1/(1 − rate)",
    dropout,
    {},
    draw(309, 2, 13, 7),
    rate=0.3,
    key=(5, 3),
    leaves="x",
    cause="constant factor",
)
def mask_without_the_scale(residuals, g):
    return {}, g * (residuals > 0)


def keep_half_precision(params, x):
    sigma = sigmoid(x)
    return x * sigma, (x, sigma.astype(np.float16))


@plant(
    "silu: the sigmoid is kept in float16",
    silu,
    {},
    draw(310, 2, 3, 7),
    forward=keep_half_precision,
    leaves="x",
    cause="precision",
    says=("float16",),
)
def half_precision(residuals, g):
    x, sigma = residuals
    sigma = sigma.astype(x.dtype)
    return {}, g * sigma * (1.0 + x * (1.0 - sigma))


ENTRIES = draw(1012, 2, 3, 7)
SOFTPLUS = (softplus, {}, ENTRIES)


@plant(
    "softplus: the 1/beta of the forward stays in the slope",
    *SOFTPLUS,
    beta=3.0,
    leaves="x",
    cause="constant factor",
)
def one_over_beta_stays(residuals, g):
    x, beta = residuals
    return {}, g * sigmoid(beta * x) / beta


@plant(
    "softplus: the sigmoid of the output",
    *SOFTPLUS,
    beta=0.7,
    forward=lambda params, x, *, beta: (softplus.forward({}, x, beta=beta)[0], (x, beta)),
    leaves="x",
    cause="wrong point",
)
def sigmoid_of_the_output(residuals, g):
    x, beta = residuals
    y, _ = softplus.forward({}, x, beta=beta)
    return {}, g * sigmoid(beta * y)


@plant(
    "softplus: e/(1 + e) overflows",
    softplus,
    {},
    draw(1013, 5, 7, scale=1000.0),
    beta=1.0,
    leaves="x",
    cause="not finite",
)
def sigmoid_overflows(residuals, g):
    x, beta = residuals
    e = np.exp(beta * x)
    return {}, g * (e / (1.0 + e))


@plant(
    "softplus: the slope of tiny values is 1 − exp(−y), which cancels",
    softplus,
    {},
    draw(1014, 5, 7) - 12.0,
    beta=1.0,
    forward=lambda params, x, *, beta: (softplus.forward({}, x, beta=beta)[0], (x, beta)),
    leaves="x",
    cause="precision",
)
def cancels(residuals, g):
    x, beta = residuals
    y, _ = softplus.forward({}, x, beta=beta)
    return {}, g * (1.0 - np.exp(-beta * y))


WARM = {"temperature": np.array(1.7)}
SCORES = draw(1201, 2, 3, 7)
TEMPERATURE_SOFTMAX = (temperature_softmax, WARM, SCORES)


@plant(
    "temperature_softmax: the minus of d(1/temperature) is forgotten",
    *TEMPERATURE_SOFTMAX,
    leaves="params.temperature",
    cause="sign",
)
def minus_forgotten(residuals, g):
    d_params, d_x = temperature_softmax.vjp(residuals, g)
    return {"temperature": -d_params["temperature"]}, d_x


@plant(
    "temperature_softmax: the temperature's gradient is summed over each row only",
    *TEMPERATURE_SOFTMAX,
    leaves="params.temperature",
    cause="missing sum",
)
def summed_over_each_row_only(residuals, g):
    x, probs, temperature = residuals
    _, d_x = temperature_softmax.vjp(residuals, g)
    d_scores = softmax_vjp(probs, g)
    return {"temperature": -(d_scores * x).sum(axis=-1) / (temperature * temperature)}, d_x
