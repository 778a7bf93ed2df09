"""Low-rank adaptation in JAX."""

import jax.numpy as jnp

from .. import dropout, linear


def forward(params, x, *, base=linear, alpha, rslora=False, columns=None, rate=0.0, key=None):
    """Return base(x) + α/r·dropout(x)·A·B, where r is √r for rsLoRA; range by range."""
    y = base.forward(params["base"], x)
    x = dropout.forward({}, x, rate=rate, key=key)
    ranges = columns or [(0, y.shape[-1])]
    r, first = len(params["b"]), 0
    for i, (start, stop) in enumerate(ranges):
        a = params["a"][:, i * r : (i + 1) * r]
        b = params["b"][:, first : first + stop - start]
        delta = alpha / (r**0.5 if rslora else r) * jnp.einsum("...i,ir,ro->...o", x, a, b)
        y = y.at[..., start:stop].add(delta)
        first += stop - start
    return y
