"""The mixer of Mamba 2 in JAX."""

from collections import namedtuple

import jax
import jax.numpy as jnp

from ...layers import linear
from ...layers.norms import rms_norm
from ...layers.recurrent import causal_convolution, selective_scan
from ...layers.recurrent import time_step as time_step_layer

Inputs = namedtuple("Inputs", "x dt b c")
WithState = namedtuple("WithState", "x state")


def forward(
    params,
    x,
    *,
    positions=None,
    n_groups=1,
    zxbcdt=linear,
    convolution=causal_convolution,
    time_step=time_step_layer,
    scan=selective_scan,
    norm=rms_norm,
    out=linear,
):
    """Project, convolve, scan from a state of zeros, gate, normalise, project back."""
    B, T, _ = x.shape
    E, H, taps = len(params["norm"]["scale"]), len(params["scan"]["D"]), params["convolution"]
    packed = zxbcdt.forward(params["zxbcdt"], x)
    z, xbc, dt = jnp.split(packed, [E, packed.shape[2] - H], axis=2)
    empty = jnp.zeros((B, len(taps["weight"]) - 1, xbc.shape[2]), x.dtype)
    xbc = jax.nn.silu(convolution.forward(taps, WithState(xbc, empty)).x)
    GN = (xbc.shape[2] - E) // 2
    xs, b, c = jnp.split(xbc, [E, E + GN], axis=2)
    inputs = Inputs(
        xs.reshape(B, T, H, E // H),
        time_step.forward(params["time_step"], dt),
        b.reshape(B, T, n_groups, GN // n_groups),
        c.reshape(B, T, n_groups, GN // n_groups),
    )
    empty = jnp.zeros((B, H, GN // n_groups, E // H), x.dtype)
    y = scan.forward(params["scan"], WithState(inputs, empty)).x.reshape(B, T, E)
    return out.forward(params["out"], norm.forward(params["norm"], y * jax.nn.silu(z)))
