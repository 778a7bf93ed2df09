"""SwiGLU feed-forward layer (Shazeer 2020, eq. 6).

Forward, for each row x (D) with the planes W_gate and W_up of ``gate_up`` (2, D, F) and W_down
(F, D):

    a = x·W_gate      u = x·W_up      h = silu(a)·u      y = h·W_down        silu(a) = a·σ(a)

VJP. With cotangent g of y, reading upwards:

    d_W_down = hᵀ·g                       d_h = g·W_downᵀ
    d_a = d_h·∂h/∂a                       ∂h/∂a = u·silu'(a) = h + σ(a)·(u − h)
    d_u = d_h·∂h/∂u                       ∂h/∂u = silu(a)
    d_W_gate = xᵀ·d_a                     d_W_up = xᵀ·d_u
    d_x = d_a·W_gateᵀ + d_u·W_upᵀ         (x feeds both planes: cotangents add)

since σ' = σ·(1 − σ) makes silu' = σ + a·σ·(1 − σ) = silu + σ·(1 − silu), and u·silu = h. Residuals
hold the two slopes of h instead of a and u, so that ``vjp`` multiplies only.

Shapes: x and y (..., D).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_dtype,
    expect_floating,
    expect_int,
    expect_params,
    expect_shape,
)
from ..numerics import rows, sigmoid
from ..prng import fold_in, normal


class Residuals(NamedTuple):
    """What `vjp` needs."""

    x: Array  # (..., D)
    slopes: Array  # (2, N, F) ∂h/∂u = silu(a), and ∂h/∂a
    hidden: Array  # (N, F) h
    gate_up: Array  # (2, D, F) the weights
    down: Array  # (F, D)


def init(
    key: Key, *, d_model: int, d_ff: int, output_scale: float = 1.0, dtype: Any = np.float32
) -> Tree:
    """Draw each matrix from N(0, 2/(d_in + d_out)); ``down`` times ``output_scale``."""
    dtype = expect_dtype(dtype)
    expect_int("d_model", d_model)
    expect_int("d_ff", d_ff)
    std = (2 / (d_model + d_ff)) ** 0.5
    return {
        "gate_up": normal(fold_in(key, 0), (2, d_model, d_ff), scale=std, dtype=dtype),
        "down": normal(fold_in(key, 1), (d_ff, d_model), scale=std * output_scale, dtype=dtype),
    }


def forward(params: Tree, x: Array) -> tuple[Array, Residuals]:
    """Return ``(silu(x @ gate) * (x @ up)) @ down``, shape (..., D).

    Raises:
        TypeError: for dtypes that are not float32 or float64, or differ.
        ValueError: for shapes that do not fit.
    """
    expect_params(params, ["gate_up", "down"])
    gate_up, down = params["gate_up"], params["down"]
    expect_floating(x=x, gate_up=gate_up, down=down)
    _, d_model, d_ff = expect_shape("gate_up", gate_up, "2 D F")
    expect_shape("down", down, "F D", F=d_ff, D=d_model)
    expect_shape("x", x, "... D", D=d_model)
    slopes = rows(x) @ gate_up  # (2, N, F): a and u, each written over when it is used up
    a, u = slopes
    sigma = sigmoid(a)
    silu = np.multiply(a, sigma, out=a)
    hidden = silu * u
    gate_slope = np.subtract(u, hidden, out=u)
    gate_slope *= sigma
    gate_slope += hidden
    y = (hidden @ down).reshape(x.shape)
    return y, Residuals(x, slopes, hidden, gate_up, down)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"gate_up", "down"}, d_x)`` for the cotangent g (..., D)."""
    x, slopes, hidden, gate_up, down = residuals
    expect_cotangent(g, x.shape, x.dtype)
    g = rows(g)  # (N, D)
    d_down = hidden.T @ g
    d_hidden = g @ down.T  # (N, F)
    d_gate_up = slopes[::-1] * d_hidden  # (2, N, F): d_a and d_u
    d_weight = rows(x).T @ d_gate_up  # (2, D, F)
    d_x = d_gate_up[0] @ gate_up[0].T + d_gate_up[1] @ gate_up[1].T
    return {"gate_up": d_weight, "down": d_down}, d_x.reshape(x.shape)


def named_slices(params: Tree) -> dict[str, Array]:
    """Return views of the three matrices by name: ``gate`` and ``up`` (D, F), ``down`` (F, D)."""
    gate, up = params["gate_up"]
    return {"gate": gate, "up": up, "down": params["down"]}
