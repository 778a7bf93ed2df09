"""The feed-forward layer: project up, apply an activation, project down.

Forward: ``up`` → activation → ``down``. ``vjp`` is the forward read upwards. With a gated
activation, such as `swiglu`, ``up`` makes the gate and the value side by side.

Shapes: x and y (B, T, D); ``up`` makes (B, T, F), or (B, T, 2F) if gated.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import Array, Key, Layer, Tree, expect_params, expect_residuals
from ..layers import linear, swiglu
from ..prng import fold_in

__all__ = ["Residuals", "forward", "hidden_units", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the layers."""

    up: Any
    activation: Any
    down: Any
    hidden: Array  # (B, T, F) after the activation, for statistics
    layers: tuple[Layer, Layer, Layer]


def init(
    key: Key | None,
    *,
    d_model: int,
    d_ff: int,
    gated: bool = True,
    output_scale: float = 1.0,
    up: Layer = linear,
    down: Layer = linear,
    dtype: Any = np.float32,
) -> Tree:
    """Draw both projections; ``output_scale`` multiplies ``down``."""
    width = (d_ff, d_ff) if gated else d_ff
    return {
        "up": up.init(fold_in(key, 0), d_in=d_model, d_out=width, dtype=dtype),
        "down": down.init(
            fold_in(key, 1), d_in=d_ff, d_out=d_model, scale=output_scale, dtype=dtype
        ),
    }


def forward(
    params: Tree,
    x: Array,
    *,
    up: Layer = linear,
    activation: Layer = swiglu,
    down: Layer = linear,
) -> tuple[Array, Residuals]:
    """Return ``down(activation(up(x)))``, shape (B, T, D).

    Args:
        params: of the projections ``up`` and ``down``.
        x: (B, T, D).
        up: the first projection.
        activation: a layer without parameters.
        down: the second projection.
    """
    expect_params(params, ["up", "down"])
    h, r_up = up.forward(params["up"], x)
    hidden, r_activation = activation.forward({}, h)
    y, r_down = down.forward(params["down"], hidden)
    return y, Residuals(r_up, r_activation, r_down, hidden, (up, activation, down))


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"up", "down"}, d_x)`` for the cotangent g (B, T, D)."""
    expect_residuals(residuals, Residuals)
    up, activation, down = residuals.layers
    d_down, d_hidden = down.vjp(residuals.down, g)
    _, d_h = activation.vjp(residuals.activation, d_hidden)
    d_up, d_x = up.vjp(residuals.up, d_h)
    return {"up": d_up, "down": d_down}, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, D) for the tangents ``({"up", "down"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    up, activation, down = residuals.layers
    t_params, t_x = t
    t_h = up.jvp(residuals.up, (t_params["up"], t_x))
    t_hidden = activation.jvp(residuals.activation, ({}, t_h))
    return down.jvp(residuals.down, (t_params["down"], t_hidden))


def hidden_units(residuals: Residuals) -> Array:
    """Return the hidden units (B, T, F) of a forward, for statistics."""
    return residuals.hidden
