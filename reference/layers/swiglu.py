"""SwiGLU feed-forward layer in JAX (Shazeer 2020, eq. 6)."""

import jax


def forward(params, x):
    """Return (silu(x·W_gate) ⊙ x·W_up)·W_down."""
    gate, up = params["gate_up"][0], params["gate_up"][1]
    return (jax.nn.silu(x @ gate) * (x @ up)) @ params["down"]
