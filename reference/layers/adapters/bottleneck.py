"""A bottleneck behind a projection, in JAX."""

import jax

from .. import linear


def forward(params, x, *, base=linear):
    """Return h + U(relu(D(h))) for h = base(x)."""
    h = base.forward(params["base"], x)
    down = {"weight": params["down"], "bias": params["down_bias"]}
    up = {"weight": params["up"], "bias": params["up_bias"]}
    return h + linear.forward(up, jax.nn.relu(linear.forward(down, h)))
