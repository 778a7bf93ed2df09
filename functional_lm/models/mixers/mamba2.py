"""The mixer of Mamba 2: a state space between two projections (Dao and Gu 2024, section 7).

Forward: ``zxbcdt`` makes five inputs side by side: a gate z, the values x, how to write to the
state (b) and read from it (c), and the step sizes Δ. Then

    x, b, c ← silu(convolution(x, b, c))
    Δ ← time_step(Δ)
    y = scan(x, Δ, b, c)
    out(norm(silu(z)·y))

``vjp`` is the forward read upwards. What a text leaves behind is the states of the convolution
and the scan, whose sizes do not depend on its length.

Shapes: x and y (B, T, D). With H heads of size P, E = H·P, and G groups of b and c of size N,
``zxbcdt`` makes (B, T, 2·E + 2·G·N + H), and ``out`` takes (B, T, E).
"""

from typing import Any, NamedTuple

import numpy as np

from ...chunks import without_padding
from ...contract import (
    Array,
    Key,
    Layer,
    Tree,
    WithState,
    expect_inputs,
    expect_params,
    expect_residuals,
    expect_shape,
    expect_sizes,
)
from ...layers import causal_convolution, linear, rms_norm, selective_scan, silu, swiglu, time_step
from ...layers.recurrent.selective_scan import Inputs
from ...prng import fold_in

__all__ = [
    "Cache",
    "Residuals",
    "context_flops",
    "forward",
    "init",
    "init_cache",
    "jvp",
    "step",
    "vjp",
]


class Cache(NamedTuple):
    """The states after the texts so far."""

    convolution: Array  # (B, W−1, E + 2·G·N)
    scan: Array  # (B, H, N, P)


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the layers."""

    zxbcdt: Any
    convolution: Any
    silu: Any
    time_step: Any
    scan: Any
    gate: Any
    norm: Any
    out: Any
    after: Cache  # the states after the text
    layers: tuple[Layer, Layer, Layer, Layer, Layer, Layer]


def init(
    key: Key | None,
    *,
    d_model: int,
    n_heads: int,
    state_size: int,
    n_groups: int = 1,
    expand: int = 2,
    output_scale: float = 1.0,
    zxbcdt: Layer = linear,
    convolution: Layer = causal_convolution,
    time_step: Layer = time_step,
    scan: Layer = selective_scan,
    norm: Layer = rms_norm,
    out: Layer = linear,
    dtype: Any = np.float32,
) -> Tree:
    """Make the parameters of the six layers, the five projections each with their own variance.

    Args:
        key: randomness.
        d_model: D.
        n_heads: H.
        state_size: N.
        n_groups: G, a divisor of H.
        expand: E/D.
        output_scale: multiplies the output projection.
        zxbcdt: the layer that makes z, x, b, c and Δ.
        convolution: of x, b and c along time.
        time_step: what makes Δ positive.
        scan: the state space.
        norm: of the gated output.
        out: the layer that projects back.
        dtype: float32 or float64.

    Raises:
        ValueError: for sizes that do not divide.
    """
    D, H, N, G, E = expect_sizes(
        d_model=d_model, n_heads=n_heads, state_size=state_size, n_groups=n_groups, expand=expand
    )
    E *= D
    if E % H or H % G:
        raise ValueError(
            "n_heads must divide expand·d_model, and n_groups must divide n_heads: "
            f"got n_heads={H}, expand·d_model={E}, n_groups={G}; change one of them"
        )
    d_out = (E, E, G * N, G * N, H)
    return {
        "zxbcdt": zxbcdt.init(fold_in(key, 0), d_in=D, d_out=d_out, dtype=dtype),
        "convolution": convolution.init(fold_in(key, 1), d_model=E + 2 * G * N, dtype=dtype),
        "time_step": time_step.init(fold_in(key, 2), n_heads=H, dtype=dtype),
        "scan": scan.init(fold_in(key, 3), n_heads=H, dtype=dtype),
        "norm": norm.init(fold_in(key, 4), d_model=E, dtype=dtype),
        "out": out.init(fold_in(key, 5), d_in=E, d_out=D, scale=output_scale, dtype=dtype),
    }


def forward(
    params: Tree,
    x: Array,
    *,
    positions: Array | None = None,
    before: Cache | None = None,
    lengths: Array | None = None,
    n_groups: int = 1,
    zxbcdt: Layer = linear,
    convolution: Layer = causal_convolution,
    time_step: Layer = time_step,
    scan: Layer = selective_scan,
    norm: Layer = rms_norm,
    out: Layer = linear,
) -> tuple[Array, Residuals]:
    """Return what the state space makes of the text, projected to (B, T, D).

    Args:
        params: from `init`.
        x: (B, T, D).
        positions: not used; the order of the rows is all that counts.
        before: the states before the text; zeros if not given.
        lengths: (B,) how many of the T positions each text really has. Default: all.
        n_groups: G, and the layers as in `init`.
    """
    expect_params(params, LAYERS)
    expect_inputs({}, "", x, "B T D")
    B, T, _ = x.shape
    before = init_cache(params, B, T, n_groups=n_groups) if before is None else before
    _, H, N, P = before.scan.shape
    E = H * P

    packed, r_zxbcdt = zxbcdt.forward(params["zxbcdt"], x)
    expect_shape("zxbcdt(x)", packed, "B T columns", columns=2 * (E + n_groups * N) + H)
    z, xbc, dt = np.split(packed, [E, packed.shape[-1] - H], axis=-1)
    convolved, r_convolution = convolution.forward(
        params["convolution"], WithState(xbc, before.convolution)
    )
    xbc_active, r_silu = silu.forward({}, convolved.x)
    dt, r_time_step = time_step.forward(params["time_step"], dt)
    conv_state = convolved.state
    if lengths is not None:  # no step, no change of the state
        dt = without_padding(dt, lengths)
        conv_state = causal_convolution.state_after(WithState(xbc, before.convolution), lengths)
    values, b, c = np.split(xbc_active, [E, E + n_groups * N], axis=-1)
    heads, group = values.reshape(B, T, H, P), (B, T, n_groups, N)
    inputs = Inputs(heads, dt, b.reshape(group), c.reshape(group))
    y, r_scan = scan.forward(params["scan"], WithState(inputs, before.scan))
    gated, r_gate = swiglu.forward({}, np.concatenate([z, y.x.reshape(B, T, E)], axis=-1))
    normed, r_norm = norm.forward(params["norm"], gated)
    projected, r_out = out.forward(params["out"], normed)
    layers = (zxbcdt, convolution, time_step, scan, norm, out)
    inner = (r_zxbcdt, r_convolution, r_silu, r_time_step, r_scan, r_gate, r_norm, r_out)
    return projected, Residuals(*inner, Cache(conv_state, y.state), layers)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return the cotangents of the six layers' parameters, and d_x, for the cotangent g (B, T, D).

    The states before the text are constants, and nothing comes from those after it.
    """
    expect_residuals(residuals, Residuals)
    after = residuals.after
    zxbcdt, convolution, time_step, scan, norm, out = residuals.layers
    d_out, d_normed = out.vjp(residuals.out, g)
    d_norm, d_gated = norm.vjp(residuals.norm, d_normed)
    _, d_zy = swiglu.vjp(residuals.gate, d_gated)
    d_z, d_y = np.split(d_zy, 2, axis=-1)
    (B, T, _), (_, H, _, P) = d_y.shape, after.scan.shape
    d_scan, (d_inputs, _) = scan.vjp(
        residuals.scan, WithState(d_y.reshape(B, T, H, P), np.zeros_like(after.scan))
    )
    parts = (d_inputs.x, d_inputs.b, d_inputs.c)
    d_active = np.concatenate([d.reshape(B, T, d.shape[2] * d.shape[3]) for d in parts], axis=-1)
    d_time_step, d_dt = time_step.vjp(residuals.time_step, d_inputs.dt)
    _, d_convolved = silu.vjp(residuals.silu, d_active)
    d_convolution, (d_xbc, _) = convolution.vjp(
        residuals.convolution, WithState(d_convolved, np.zeros_like(after.convolution))
    )
    d_packed = np.concatenate([d_z, d_xbc, d_dt], axis=-1)
    d_zxbcdt, d_x = zxbcdt.vjp(residuals.zxbcdt, d_packed)
    d_params = (d_zxbcdt, d_convolution, d_time_step, d_scan, d_norm, d_out)
    return dict(zip(LAYERS, d_params, strict=True)), d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, D) for the tangents of the six layers' parameters and of x."""
    expect_residuals(residuals, Residuals)
    after = residuals.after
    zxbcdt, convolution, time_step, scan, norm, out = residuals.layers
    t_params, t_x = t
    (B, H, N, P), T = after.scan.shape, t_x.shape[1]
    E = H * P
    t_packed = zxbcdt.jvp(residuals.zxbcdt, (t_params["zxbcdt"], t_x))
    t_z, t_xbc, t_dt = np.split(t_packed, [E, t_packed.shape[-1] - H], axis=-1)
    t_text = WithState(t_xbc, np.zeros_like(after.convolution))
    t_convolved = convolution.jvp(residuals.convolution, (t_params["convolution"], t_text))
    t_active = silu.jvp(residuals.silu, ({}, t_convolved.x))
    t_dt = time_step.jvp(residuals.time_step, (t_params["time_step"], t_dt))
    t_values, t_bc = np.split(t_active, [E], axis=-1)
    group = (B, T, t_bc.shape[-1] // (2 * N), N)
    t_b, t_c = (part.reshape(group) for part in np.split(t_bc, 2, axis=-1))
    t_inputs = Inputs(t_values.reshape(B, T, H, P), t_dt, t_b, t_c)
    t_text = WithState(t_inputs, np.zeros_like(after.scan))
    t_y = scan.jvp(residuals.scan, (t_params["scan"], t_text))
    t_zy = np.concatenate([t_z, t_y.x.reshape(B, T, E)], axis=-1)
    t_gated = swiglu.jvp(residuals.gate, ({}, t_zy))
    t_normed = norm.jvp(residuals.norm, (t_params["norm"], t_gated))
    return out.jvp(residuals.out, (t_params["out"], t_normed))


LAYERS = ("zxbcdt", "convolution", "time_step", "scan", "norm", "out")
"""The names of the layers that have parameters."""


def init_cache(params: Tree, batch: int, length: int, *, n_groups: int = 1) -> Cache:
    """Return the states, zero, of that many texts; they take the same memory for any length."""
    expect_inputs(params["convolution"], "weight: W columns, bias?: columns")
    expect_inputs(params["norm"], "scale: E")
    expect_inputs(params["scan"], "A_log: H, D: H")
    taps = params["convolution"]["weight"]  # (W, E + 2·G·N)
    columns, E, H = taps.shape[1], len(params["norm"]["scale"]), len(params["scan"]["D"])
    N, rest = divmod(columns - E, 2 * n_groups)
    if N < 1 or rest or E % H:
        raise ValueError(
            "the convolution must have E + 2·G·N columns, E a multiple of the H heads: "
            f"got {columns}, E={E}, H={H}, n_groups={n_groups}; pass the settings of init"
        )
    return Cache(
        np.zeros((batch, len(taps) - 1, columns), taps.dtype),
        np.zeros((batch, H, N, E // H), taps.dtype),
    )


def step(
    params: Tree, x: Array, cache: Cache, *, lengths: Array | None = None, **settings: Any
) -> tuple[Array, Cache]:
    """Return the output (B, T, D) for the next positions of each text, and the states after them.

    Args:
        params: from `init`.
        x: (B, T, D), of the T positions after those that the cache has seen.
        cache: from `init_cache` or an earlier step.
        lengths: (B,) how many of the T positions each text really has; the rest is padding.
            Default: all.
        settings: those of `forward`.
    """
    y, residuals = forward(params, x, before=cache, lengths=lengths, **settings)
    return y, residuals.after


def context_flops(context: int, *, d_model: int, state_size: int, expand: int = 2) -> int:
    """Return the arithmetic of the scan for a token, whatever it has seen.

    Each entry of the states decays, is written to and read: three products and two sums.
    """
    return 5 * expand * d_model * state_size
