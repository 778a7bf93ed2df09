"""Short causal convolution along time, each channel for itself (Poli et al. 2023, section 3).

Forward, for one channel with W taps w, an optional bias b, and the W − 1 inputs before the text as
the state. With x₋₁, x₋₂, ... for those in the state:

    yₜ = Σⱼ wⱼ·xₜ₋ⱼ + b,  j = 0 ... W − 1        state after = the last W − 1 of (state, x)

VJP. Write p for the state and x in one row, so that xₜ₋ⱼ is entry t + W − 1 − j of p. With
cotangents g of y and h of the state after:

    d_wⱼ = Σₜ gₜ·xₜ₋ⱼ        d_b = Σₜ gₜ        (summed over the batch too)
    d_p  = Σⱼ wⱼ·(g moved to the entries that tap j read),  plus h on the last W − 1 entries

and d_p is d_state and d_x in one row. A text shorter than the taps needs no case of its own: some
of the last W − 1 entries of p then come from the state, and h goes there.

JVP. With the tangents of the state and x in one row t_p, each tap by the product rule:

    t_yₜ = Σⱼ wⱼ·t_xₜ₋ⱼ + t_wⱼ·xₜ₋ⱼ + t_b        t_state after = the last W − 1 of t_p

Shapes: x is ``WithState(x, state)`` with x (B, T, D) and state (B, W−1, D), its last entry just
before the text; y is ``WithState(y, state)`` alike. The weight is (W, D): row j is the tap on the
input of j positions ago.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Tree,
    WithState,
    expect_cotangent,
    expect_dtype,
    expect_floating,
    expect_inputs,
    expect_residuals,
    expect_shape,
    expect_sizes,
    expect_tangent,
    expect_with_state,
)
from ...numerics import rows, sum_rows
from ...prng import normal

__all__ = ["Residuals", "forward", "init", "jvp", "state_after", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs."""

    padded: Array  # (B, W−1+T, D) the state and x in one row
    weight: Array  # (W, D)
    has_bias: bool


def init(
    key: Key | None,
    *,
    d_model: int,
    width: int = 4,
    bias: bool = False,
    identity: bool = False,
    dtype: Any = np.float32,
) -> Tree:
    """Draw the taps from N(0, 1/width), so that y varies as x does; a bias starts at zero.

    With ``identity`` the first tap is 1 and the others 0 instead, so that y is x.
    """
    D, W = expect_sizes(d_model=d_model, width=width)
    if identity:
        params = {"weight": np.eye(W, 1, dtype=expect_dtype(dtype)).repeat(D, axis=1)}
    else:
        params = {"weight": normal(key, (W, D), scale=W**-0.5, dtype=dtype)}
    if bias:
        params["bias"] = np.zeros(D, expect_dtype(dtype))
    return params


def forward(params: Tree, x: WithState) -> tuple[WithState, Residuals]:
    """Return each input mixed with the W − 1 before it, (B, T, D), and the state after the text."""
    text, state = expect_with_state(x)
    expect_inputs(params, "weight: W D, bias?: D", text, "B T D")
    weight, bias = params["weight"], params.get("bias")
    (B, T, D), W = text.shape, len(weight)
    expect_floating(x=text, state=state)
    expect_shape("state", state, "B W-1 D", **{"B": B, "W-1": W - 1, "D": D})
    padded = np.concatenate([state, text], axis=1)  # (B, W−1+T, D)
    y = np.zeros_like(text)
    for j, read in enumerate(_reads(padded, W)):
        y += weight[j] * read
    if bias is not None:
        y += bias
    return WithState(y, padded[:, T:].copy()), Residuals(padded, weight, bias is not None)


def vjp(residuals: Residuals, g: WithState) -> tuple[Tree, WithState]:
    """Return ``({"weight", "bias"}, WithState(d_x, d_state))`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    padded, weight, has_bias = residuals
    (B, length, D), W = padded.shape, len(weight)
    T = length - (W - 1)
    expect_cotangent(g.x, (B, T, D), padded.dtype)
    expect_cotangent(g.state, (B, W - 1, D), padded.dtype)
    d_weight = [sum_rows(rows(g.x * read)) for read in _reads(padded, W)]
    d_padded = np.zeros_like(padded)
    d_padded[:, T:] = g.state
    for j, d_read in enumerate(_reads(d_padded, W)):
        d_read += weight[j] * g.x
    d_params = {"weight": np.stack(d_weight)}
    if has_bias:
        d_params["bias"] = sum_rows(rows(g.x))
    return d_params, WithState(d_padded[:, W - 1 :], d_padded[:, : W - 1])


def jvp(residuals: Residuals, t: tuple[Tree, WithState]) -> WithState:
    """Return ``WithState(t_y, t_state)`` for the tangents of the parameters, x and the state."""
    expect_residuals(residuals, Residuals)
    padded, weight, has_bias = residuals
    (B, length, D), W = padded.shape, len(weight)
    T = length - (W - 1)
    of_params = {"weight": (W, D)} | ({"bias": (D,)} if has_bias else {})
    shapes = of_params, WithState._make([(B, T, D), (B, W - 1, D)])
    t_params, (t_x, t_state) = expect_tangent(t, shapes, padded.dtype)
    t_padded = np.concatenate([t_state, t_x], axis=1)  # (B, W−1+T, D)
    t_y = np.zeros_like(t_x)
    reads = zip(_reads(padded, W), _reads(t_padded, W), strict=True)
    for tap, t_tap, (read, t_read) in zip(weight, t_params["weight"], reads, strict=True):
        t_y += tap * t_read + t_tap * read
    if has_bias:
        t_y += t_params["bias"]
    return WithState(t_y, t_padded[:, T:].copy())


def state_after(x: WithState, lengths: Array) -> Array:
    """Return the state (B, W−1, D) after the first ``lengths`` (B,) positions of each text."""
    padded = np.concatenate([x.state, x.x], axis=1)  # (B, W−1+T, D)
    last = lengths[:, None] + np.arange(x.state.shape[1])  # (B, W−1)
    return np.take_along_axis(padded, last[:, :, None], axis=1)


def _reads(padded: Array, width: int) -> list[Array]:
    """Return for each tap a view of the T entries that it reads, first the tap on xₜ itself."""
    T = padded.shape[1] - (width - 1)
    return [padded[:, start : start + T] for start in reversed(range(width))]
