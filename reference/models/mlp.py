"""The feed-forward layer in JAX."""

from ..layers import linear
from ..layers.feedforward import swiglu


def forward(params, x, *, up=linear, activation=swiglu, down=linear):
    """Return down(activation(up(x)))."""
    h = up.forward(params["up"], x)
    return down.forward(params["down"], activation.forward({}, h))
