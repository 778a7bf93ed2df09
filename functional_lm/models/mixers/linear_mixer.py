"""A mixer without softmax: linear attention, or a gated delta rule, between two projections.

Forward: ``packed`` makes queries, keys and values, a gate z and, for a delta rule, the inputs of
its gates side by side. Then

    q, k, v ← silu(convolution(q, k, v))
    q, k ← qk_norm(q), qk_norm(k)
    y = core(q, k, v), or core(q, k, v, gates(...))
    out(silu(z)·norm(y))

each head normalised for itself. ``vjp`` is the forward read upwards. This is the block of Gated
DeltaNet (Yang, Kautz and Hatamizadeh 2024, figure 1); with `linear_attention` for its core it is
close to that of Lightning attention. What a text leaves behind is the states of the convolution
and the core, whose sizes do not depend on its length.

Shapes: x and y (B, T, D). With H heads, keys of size K and values of size Kv, ``packed`` makes
(B, T, H·(2·K + 2·Kv)), and 2·H more columns for gates; ``out`` takes (B, T, H·Kv).
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
from ...layers import (
    causal_convolution,
    l2_norm,
    linear,
    linear_attention,
    rms_norm,
    silu,
    swiglu,
)
from ...layers.recurrent.delta_gates import Gates
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

    convolution: Array  # (B, W−1, H·(2·K + Kv))
    core: Array  # (B, H, K, Kv)


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the layers."""

    packed: Any
    convolution: Any
    silu: Any
    qk_norm: Any
    gates: Any
    core: Any
    norm: Any
    gating: Any
    out: Any
    after: Cache  # the states after the text
    layers: tuple[Any, ...]


def init(
    key: Key | None,
    *,
    d_model: int,
    n_heads: int,
    key_size: int,
    value_size: int,
    output_scale: float = 1.0,
    packed: Layer = linear,
    convolution: Layer = causal_convolution,
    gates: Layer | None = None,
    norm: Layer = rms_norm,
    out: Layer = linear,
    dtype: Any = np.float32,
) -> Tree:
    """Make the parameters of the layers, the projections each with their own variance.

    Args:
        key: randomness.
        d_model: D.
        n_heads: H.
        key_size: K.
        value_size: Kv.
        output_scale: multiplies the output projection.
        packed: the layer that makes queries, keys, values, z and the inputs of the gates.
        convolution: of queries, keys and values along time.
        gates: what makes β and the log decay, such as `delta_gates`; None for linear attention.
        norm: of each head's output.
        out: the layer that projects back.
        dtype: float32 or float64.
    """
    D, H, K, Kv = expect_sizes(
        d_model=d_model, n_heads=n_heads, key_size=key_size, value_size=value_size
    )
    d_out = (H * K, H * K, H * Kv, H * Kv) + (() if gates is None else (H, H))
    width = H * (2 * K + Kv)
    params = {
        "packed": packed.init(fold_in(key, 0), d_in=D, d_out=d_out, dtype=dtype),
        "convolution": convolution.init(fold_in(key, 1), d_model=width, dtype=dtype),
        "norm": norm.init(fold_in(key, 2), d_model=Kv, dtype=dtype),
        "out": out.init(fold_in(key, 3), d_in=H * Kv, d_out=D, scale=output_scale, dtype=dtype),
    }
    if gates is not None:
        params["gates"] = gates.init(fold_in(key, 4), n_heads=H, dtype=dtype)
    return params


def forward(
    params: Tree,
    x: Array,
    *,
    n_heads: int,
    positions: Array | None = None,
    before: Cache | None = None,
    lengths: Array | None = None,
    packed: Layer = linear,
    convolution: Layer = causal_convolution,
    qk_norm: Layer = l2_norm,
    core: Any = linear_attention,
    gates: Layer | None = None,
    norm: Layer = rms_norm,
    out: Layer = linear,
) -> tuple[Array, Residuals]:
    """Return what the queries read from the memory, gated and projected to (B, T, D).

    Args:
        params: from `init`.
        x: (B, T, D).
        n_heads: H.
        positions: not used; the order of the rows is all that counts.
        before: the states before the text; zeros if not given.
        lengths: (B,) how many of the T positions each text really has. Default: all.
        packed: the first projection.
        convolution: of queries, keys and values along time.
        qk_norm: of each query and key.
        core: `linear_attention`, or `gated_delta_rule` with ``gates``.
        gates: what the core reads beside queries, keys and values.
        norm: of each head's output.
        out: the last projection.
    """
    expect_params(params, [*NAMES, *([] if gates is None else ["gates"])])
    expect_inputs({}, "", x, "B T D")
    B, T, _ = x.shape
    before = init_cache(params, B, T, n_heads=n_heads) if before is None else before
    _, H, K, Kv = before.core.shape
    width, columns = H * (2 * K + Kv), H * (2 * K + 2 * Kv)

    h, r_packed = packed.forward(params["packed"], x)
    expect_shape("packed(x)", h, "B T columns", columns=columns + 2 * H * (gates is not None))
    qkv, z, for_gates = np.split(h, [width, columns], axis=-1)
    convolved, r_convolution = convolution.forward(
        params["convolution"], WithState(qkv, before.convolution)
    )
    active, r_silu = silu.forward({}, convolved.x)
    qk, v = np.split(active, [2 * H * K], axis=-1)
    qk, r_qk_norm = qk_norm.forward({}, qk.reshape(B, T, 2 * H, K))
    others: Any = ()
    r_gates = None
    if gates is not None:
        others, r_gates = gates.forward(params["gates"], Gates(*np.split(for_gates, 2, axis=-1)))
    inputs = core.Inputs(qk[:, :, :H], qk[:, :, H:], v.reshape(B, T, H, Kv), *others)
    convolution_state = convolved.state
    if lengths is not None:
        inputs = core.Inputs(inputs.q, *(without_padding(part, lengths) for part in inputs[1:]))
        text = WithState(qkv, before.convolution)
        convolution_state = causal_convolution.state_after(text, lengths)
    y, r_core = core.forward({}, WithState(inputs, before.core))
    normed, r_norm = norm.forward(params["norm"], y.x)
    gated, r_gating = swiglu.forward({}, np.concatenate([z, normed.reshape(B, T, H * Kv)], axis=-1))
    projected, r_out = out.forward(params["out"], gated)
    return projected, Residuals(
        *(r_packed, r_convolution, r_silu, r_qk_norm, r_gates, r_core, r_norm, r_gating, r_out),
        Cache(convolution_state, y.state),
        (packed, convolution, qk_norm, gates, core, norm, out),
    )


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"packed", "convolution", ...}, d_x)`` for the cotangent g (B, T, D)."""
    expect_residuals(residuals, Residuals)
    r = residuals
    packed, convolution, qk_norm, gates, core, norm, out = r.layers
    (B, H, K, Kv), T = r.after.core.shape, g.shape[1]
    d_out, d_gated = out.vjp(r.out, g)
    _, d_pair = swiglu.vjp(r.gating, d_gated)
    d_z, d_normed = np.split(d_pair, 2, axis=-1)
    d_norm, d_y = norm.vjp(r.norm, d_normed.reshape(B, T, H, Kv))
    _, d_inputs = core.vjp(r.core, WithState(d_y, np.zeros_like(r.after.core)))
    d_q, d_k, d_v, *d_others = d_inputs.x
    _, d_qk = qk_norm.vjp(r.qk_norm, np.concatenate([d_q, d_k], axis=2))
    d_active = [d_qk.reshape(B, T, 2 * H * K), d_v.reshape(B, T, H * Kv)]
    _, d_convolved = silu.vjp(r.silu, np.concatenate(d_active, axis=-1))
    d_convolution, d_qkv = convolution.vjp(
        r.convolution, WithState(d_convolved, np.zeros_like(r.after.convolution))
    )
    d_h = [d_qkv.x, d_z]
    d_params = {"convolution": d_convolution, "norm": d_norm, "out": d_out}
    if gates is not None:
        d_params["gates"], d_for_gates = gates.vjp(r.gates, Gates(*d_others))
        d_h += d_for_gates
    d_params["packed"], d_x = packed.vjp(r.packed, np.concatenate(d_h, axis=-1))
    return d_params, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Array:
    """Return t_y (B, T, D) for the tangents ``({"packed", "convolution", ...}, t_x)``."""
    expect_residuals(residuals, Residuals)
    r = residuals
    packed, convolution, qk_norm, gates, core, norm, out = r.layers
    t_params, t_x = t
    (B, H, K, Kv), T = r.after.core.shape, t_x.shape[1]
    t_h = packed.jvp(r.packed, (t_params["packed"], t_x))
    ends = [H * (2 * K + Kv), H * (2 * K + 2 * Kv)]
    t_qkv, t_z, t_for_gates = np.split(t_h, ends, axis=-1)
    t_text = WithState(t_qkv, np.zeros_like(r.after.convolution))
    t_convolved = convolution.jvp(r.convolution, (t_params["convolution"], t_text))
    t_active = silu.jvp(r.silu, ({}, t_convolved.x))
    t_qk, t_v = np.split(t_active, [2 * H * K], axis=-1)
    t_qk = qk_norm.jvp(r.qk_norm, ({}, t_qk.reshape(B, T, 2 * H, K)))
    t_others: Any = ()
    if gates is not None:
        t_pair = Gates(*np.split(t_for_gates, 2, axis=-1))
        t_others = gates.jvp(r.gates, (t_params["gates"], t_pair))
    t_inputs = core.Inputs(t_qk[:, :, :H], t_qk[:, :, H:], t_v.reshape(B, T, H, Kv), *t_others)
    t_y = core.jvp(r.core, ({}, WithState(t_inputs, np.zeros_like(r.after.core))))
    t_normed = norm.jvp(r.norm, (t_params["norm"], t_y.x)).reshape(B, T, H * Kv)
    t_gated = swiglu.jvp(r.gating, ({}, np.concatenate([t_z, t_normed], axis=-1)))
    return out.jvp(r.out, (t_params["out"], t_gated))


def init_cache(params: Tree, batch: int, length: int, *, n_heads: int) -> Cache:
    """Return the states, zero, of that many texts; they take the same memory for any length."""
    expect_inputs(params["convolution"], "weight: W columns, bias?: columns")
    expect_inputs(params["norm"], "scale: Kv")
    taps, H, Kv = params["convolution"]["weight"], n_heads, len(params["norm"]["scale"])
    K, rest = divmod(taps.shape[1] - H * Kv, 2 * H)
    if K < 1 or rest:
        raise ValueError(
            f"the convolution must have H·(2·K + Kv) columns: got {taps.shape[1]}, H={H}, Kv={Kv}; "
            "pass the n_heads of init"
        )
    return Cache(
        np.zeros((batch, len(taps) - 1, taps.shape[1]), taps.dtype),
        np.zeros((batch, H, K, Kv), taps.dtype),
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


def context_flops(context: int, *, n_heads: int, key_size: int, value_size: int) -> int:
    """Return the arithmetic of the memory for a token, whatever it has seen.

    Each entry is written to and read: two products and two sums.
    """
    return 4 * n_heads * key_size * value_size


NAMES = ("packed", "convolution", "norm", "out")
