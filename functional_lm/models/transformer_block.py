"""A pre-norm transformer block: attention and feed-forward, each on a residual path.

Forward:

    x ← x + dropout(self_attention(rms_norm(x)))
    x ← x + dropout(swiglu(rms_norm(x)))

``vjp`` is the forward read upwards. Where x feeds the skip path and a branch, cotangents add.

Shapes: x and y (B, T, D).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import Array, Key, Tree, expect_params
from ..layers import dropout as dropout_layer
from ..layers import rms_norm, swiglu
from ..prng import fold_in
from . import self_attention


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer."""

    norm1: rms_norm.Residuals
    attention: self_attention.Residuals
    dropout1: dropout_layer.Residuals
    norm2: rms_norm.Residuals
    mlp: swiglu.Residuals
    dropout2: dropout_layer.Residuals


def init(
    key: Key,
    *,
    d_model: int,
    n_heads: int,
    d_ff: int,
    n_kv_heads: int | None = None,
    output_scale: float = 1.0,
    dtype: Any = np.float32,
) -> Tree:
    """Draw a block; ``output_scale`` multiplies the two matrices that write to the residual."""
    return {
        "norm1": rms_norm.init(d_model=d_model, dtype=dtype),
        "attention": self_attention.init(
            fold_in(key, 0),
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            output_scale=output_scale,
            dtype=dtype,
        ),
        "norm2": rms_norm.init(d_model=d_model, dtype=dtype),
        "mlp": swiglu.init(
            fold_in(key, 1), d_model=d_model, d_ff=d_ff, output_scale=output_scale, dtype=dtype
        ),
    }


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    positions: Array,
    causal: bool = True,
    mask: Array | None = None,
    norm_eps: float = 1e-6,
    rope_theta: float = 10000.0,
    rope_pairing: str = "interleaved",
    attention: str = "auto",
    dropout: float = 0.0,
    key: Key | None = None,
) -> tuple[Array, Residuals]:
    """Return the block's output, shape (B, T, D). No key: no dropout.

    The settings are those of `self_attention.forward`, with the eps of the norms and the rate of
    the two dropouts.

    Raises:
        TypeError: for dtypes that are not float32 or float64, or differ.
        ValueError: for shapes or settings that do not fit.
    """
    expect_params(params, ["norm1", "attention", "norm2", "mlp"])
    h, norm1 = rms_norm.forward(params["norm1"], x, eps=norm_eps)
    a, r_attention = self_attention.forward(
        params["attention"],
        h,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        positions=positions,
        causal=causal,
        mask=mask,
        rope_theta=rope_theta,
        rope_pairing=rope_pairing,
        attention=attention,
    )
    a, dropout1 = dropout_layer.forward({}, a, rate=dropout, key=fold_in(key, 0))
    x = x + a
    h, norm2 = rms_norm.forward(params["norm2"], x, eps=norm_eps)
    m, mlp = swiglu.forward(params["mlp"], h)
    m, dropout2 = dropout_layer.forward({}, m, rate=dropout, key=fold_in(key, 1))
    return x + m, Residuals(norm1, r_attention, dropout1, norm2, mlp, dropout2)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"norm1", "attention", "norm2", "mlp"}, d_x)`` for the cotangent g (B, T, D)."""
    _, d_m = dropout_layer.vjp(residuals.dropout2, g)
    d_mlp, d_h = swiglu.vjp(residuals.mlp, d_m)
    d_norm2, d_branch = rms_norm.vjp(residuals.norm2, d_h)
    g = g + d_branch  # x feeds the skip path and the branch: cotangents add

    _, d_a = dropout_layer.vjp(residuals.dropout1, g)
    d_attention, d_h = self_attention.vjp(residuals.attention, d_a)
    d_norm1, d_branch = rms_norm.vjp(residuals.norm1, d_h)
    g = g + d_branch
    return {"norm1": d_norm1, "attention": d_attention, "norm2": d_norm2, "mlp": d_mlp}, g
