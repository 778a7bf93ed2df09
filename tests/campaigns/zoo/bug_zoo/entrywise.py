"""Activations, softmax and dropout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.layers import dropout, relu, relu_squared, silu, soft_cap
from functional_lm.layers import softmax as softmax_layer
from functional_lm.numerics import rows, sigmoid, softmax, softmax_vjp

from .bug import Layer, draw, plant

ENTRIES = draw(308, 2, 3, 5)

plant(
    softmax_layer,
    {},
    draw(301, 2, 3, 7),
    """
    the sum is added where it is subtracted
    x: wrong term
    - return {}, softmax_vjp(probs, g)
    + return {}, probs * (g + (g * probs).sum(axis=-1, keepdims=True))

    the products are formed in g to save memory
    overwritten (g)
    - return {}, softmax_vjp(probs, g)
    + g *= probs
    + return {}, g - probs * g.sum(axis=-1, keepdims=True)
    """,
)

plant(
    relu,
    {},
    draw(311, 2, 3, 7),
    """
    the slope below zero is 0.01, as in a leaky ReLU
    x: mask leak
    - return {}, g * (x > 0.0)
    + return {}, g * np.where(x > 0.0, 1.0, 0.01).astype(x.dtype)

    the mask is of g and not of x
    x: not linear in g
    - return {}, g * (x > 0.0)
    + return {}, g * (g > 0.0)
    """,
)

plant(
    relu_squared,
    {},
    draw(312, 2, 3, 7),
    """
    the factor 2 of the square is left out
    x: constant factor
    - return {}, 2.0 * g * relu
    + return {}, g * relu

    the slope is taken at the square
    x: extra factor
    - return relu * relu, Residuals(relu)
    + return relu * relu, Residuals(relu * relu)
    """,
)

plant(
    soft_cap,
    {},
    draw(313, 2, 3, 7),
    """
    1/c cancels one c, and another is put in
    x: constant factor
    - return {}, g * (1.0 - tanh * tanh)
    + return {}, g * (1.0 - tanh * tanh) / 0.7

    the logits pass as if they were not capped
    x: missing factor
    - return {}, g * (1.0 - tanh * tanh)
    + return {}, g
    """,
    cap=0.7,
)

plant(
    silu,
    {},
    draw(310, 2, 3, 7),
    """
    the sigmoid is kept in float16
    x: precision (float16)
    - return x * sigma, Residuals(x, sigma)
    + return x * sigma, Residuals(x, sigma.astype("float16"))
    - x, sigma = residuals
    + x, sigma = residuals
    + sigma = sigma.astype(x.dtype)

    flattened in the order in which the memory lies
    layout
    - return {}, g * sigma * (1.0 + x * (1.0 - sigma))
    + slope = sigma * (1.0 + x * (1.0 - sigma))
    + return {}, (g.ravel(order="K") * slope.ravel(order="K")).reshape(g.shape)
    """,
)

plant(
    dropout,
    {},
    draw(309, 2, 13, 7),
    """
    the mask without the scale 1/(1 − rate)
    x: constant factor
    - return {}, g if multiplier is None else g * multiplier
    + return {}, g if multiplier is None else g * (multiplier > 0)

    the mask is drawn anew in the backward
    x: hidden state
    - init = init_nothing
    + import numpy as np
    + GENERATOR = np.random.default_rng(605)
    - return x * multiplier, Residuals(multiplier, x)
    + return x * multiplier, Residuals(rate, x)
    - multiplier, x = residuals
    + rate, x = residuals
    - return {}, g if multiplier is None else g * multiplier
    + return {}, g * (GENERATOR.random(g.shape) >= rate) / (1.0 - rate)
    """,
    rate=0.3,
    key=(5, 3),
)


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

    inputs = ({}, draw(302, 3, 7), {})
    bugs = """
    g is not summed over the classes
    x: missing sum
    - return {}, g - probs * g.sum(axis=-1, keepdims=True)
    + return {}, g - probs * g

    y itself is the residual
    shared memory
    - return y, np.exp(y)
    + return y, y
    - def vjp(probs, g):
    + def vjp(y, g):
    +     probs = np.exp(y)

    squeeze also drops a batch of one
    edge shape
    - return {}, g - probs * g.sum(axis=-1, keepdims=True)
    + return {}, g - probs * g.sum(axis=-1, keepdims=True).squeeze()[:, None]
    """


plant(
    log_softmax,
    {},
    draw(303, 5, 7, scale=1000.0),
    """
    the probabilities are computed anew without the maximum
    x: not finite
    - return y, np.exp(y)
    + return y, x
    - def vjp(probs, g):
    + def vjp(x, g):
    +     probs = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    """,
)


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

    inputs = ({}, draw(304, 2, 3, 5, scale=2.0), {"cap": 3.0})
    bugs = """
    the slope of tanh is taken at x and not at x/cap
    x: wrong point
    - _, t, _ = residuals
    - return {}, g * (1.0 - t * t)
    + x, _, _ = residuals
    + return {}, g * (1.0 - np.tanh(x) ** 2)

    large cotangents are clipped
    x: not linear in g
    - return {}, g * (1.0 - t * t)
    + return {}, np.clip(g, -1.0, 1.0) * (1.0 - t * t)
    """


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

    inputs = ({"alpha": np.array(0.7), "gamma": draw(306, 5), "beta": draw(307, 5)}, ENTRIES, {})
    bugs = """
    alpha does not get the inner derivative x
    params.alpha: missing factor
    - "alpha": (d_inner * x).sum(),
    + "alpha": d_inner.sum(),

    gamma stays in its own gradient
    params.gamma: extra factor (gamma)
    - "gamma": rows(g * t).sum(axis=0),
    + "gamma": rows(g * gamma * t).sum(axis=0),
    """


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

    inputs = ({}, draw(1012, 2, 3, 7), {"beta": 0.7})
    bugs = """
    the 1/beta of the forward stays in the slope
    x: constant factor
    - return {}, g * sigmoid(beta * x)
    + return {}, g * sigmoid(beta * x) / beta

    the sigmoid of the output
    x: wrong point
    - return y, (x, beta)
    + return y, (y * 1, beta)
    """


plant(
    softplus,
    {},
    draw(1013, 5, 7, scale=1000.0),
    """
    e/(1 + e) overflows
    x: not finite
    - return {}, g * sigmoid(beta * x)
    + e = np.exp(beta * x)
    + return {}, g * (e / (1.0 + e))
    """,
    beta=1.0,
)

plant(
    softplus,
    {},
    draw(1014, 5, 7) - 12.0,
    """
    the slope of tiny values is 1 − exp(−y), which cancels
    x: precision
    - return y, (x, beta)
    + return y, (y * 1, beta)
    - x, beta = residuals
    - return {}, g * sigmoid(beta * x)
    + y, beta = residuals
    + return {}, g * (1.0 - np.exp(-beta * y))
    """,
    beta=1.0,
)


class temperature_softmax(Layer):
    """The softmax of x over a learned temperature."""

    SHARES_MEMORY = "y is the residual"

    def forward(params, x):
        temperature = params["temperature"]
        probs = softmax(x / temperature)
        return probs, (x, probs, temperature)

    def vjp(residuals, g):
        x, probs, temperature = residuals
        d_scores = softmax_vjp(probs, g)
        d_temperature = -(d_scores * x).sum() / (temperature * temperature)
        return {"temperature": d_temperature}, d_scores / temperature

    def reference(params, x):
        return jax.nn.softmax(x / params["temperature"], axis=-1)

    inputs = ({"temperature": np.array(1.7)}, draw(1201, 2, 3, 7), {})
    bugs = """
    the minus of d(1/temperature) is forgotten
    params.temperature: sign
    - d_temperature = -(d_scores * x).sum() / (temperature * temperature)
    + d_temperature = (d_scores * x).sum() / (temperature * temperature)

    the temperature's gradient is summed over each row only
    params.temperature: missing sum
    - d_temperature = -(d_scores * x).sum() / (temperature * temperature)
    + d_temperature = -(d_scores * x).sum(axis=-1) / (temperature * temperature)
    """
