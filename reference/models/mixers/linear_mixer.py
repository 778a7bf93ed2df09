"""The mixer of linear attention and of Gated DeltaNet in JAX."""

from collections import namedtuple

import jax
import jax.numpy as jnp

from ...layers import linear
from ...layers.norms import l2_norm, rms_norm
from ...layers.recurrent import causal_convolution, linear_attention

Gates = namedtuple("Gates", "beta log_decay")
WithState = namedtuple("WithState", "x state")


def forward(
    params,
    x,
    *,
    n_heads,
    positions=None,
    packed=linear,
    convolution=causal_convolution,
    qk_norm=l2_norm,
    core=linear_attention,
    gates=None,
    norm=rms_norm,
    out=linear,
):
    """Project, convolve, run the core from a state of zeros, normalise, gate, project back."""
    (B, T, _), H = x.shape, n_heads
    taps, Kv = params["convolution"], len(params["norm"]["scale"])
    W, width = taps["weight"].shape
    K = (width - H * Kv) // (2 * H)
    h = packed.forward(params["packed"], x)
    qkv, z, for_gates = jnp.split(h, [width, width + H * Kv], axis=2)
    convolved = convolution.forward(taps, WithState(qkv, jnp.zeros((B, W - 1, width), x.dtype)))
    q, k, v = jnp.split(jax.nn.silu(convolved.x), [H * K, 2 * H * K], axis=2)
    q, k = (qk_norm.forward({}, part.reshape(B, T, H, K)) for part in (q, k))
    others = (
        ()
        if gates is None
        else gates.forward(params["gates"], Gates(*jnp.split(for_gates, 2, axis=2)))
    )
    inputs = (q, k, v.reshape(B, T, H, Kv), *others)
    y = core.forward({}, WithState(inputs, jnp.zeros((B, H, K, Kv), x.dtype)))
    y = norm.forward(params["norm"], y.x).reshape(B, T, H * Kv)
    return out.forward(params["out"], y * jax.nn.silu(z))
