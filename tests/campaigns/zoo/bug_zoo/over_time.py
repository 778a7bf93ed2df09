"""Along time: scans, convolutions, pooling, shifts."""

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.contract import WithState
from functional_lm.heads import QKV
from functional_lm.layers import (
    causal_convolution,
    delta_gates,
    gated_delta_rule,
    linear_attention,
    selective_scan,
)
from functional_lm.models import short_convolution
from functional_lm.numerics import rows

from .bug import Layer, draw, plant

STEPS = draw(1302, 2, 7, 5)
PADDED = draw(1303, 3, 7, 5)


class leaky_scan(Layer):
    """hₜ = decay·hₜ₋₁ + xₜ from h = 0, and y is h."""

    def forward(params, x):
        decay = params["decay"]  # (D,)
        h = np.zeros_like(x)  # (B, T, D)
        for t in range(x.shape[1]):
            h[:, t] = x[:, t] if t == 0 else decay * h[:, t - 1] + x[:, t]
        before = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
        return h, (before, decay)

    def vjp(residuals, g):
        before, decay = residuals
        d_h = g.copy()
        for t in reversed(range(g.shape[1] - 1)):
            d_h[:, t] += decay * d_h[:, t + 1]
        return {"decay": rows(d_h * before).sum(axis=0)}, d_h

    def reference(params, x):
        def step(h, x_t):
            h = params["decay"] * h + x_t
            return h, h

        _, h = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))
        return h.swapaxes(0, 1)

    inputs = ({"decay": draw(401, 5, scale=0.5)}, draw(402, 2, 7, 5), {})
    bugs = """
    the cotangent is not carried from step to step
    params.decay x: missing term
    - for t in reversed(range(g.shape[1] - 1)):
    -     d_h[:, t] += decay * d_h[:, t + 1]
    """


def lagged(padded, lags, k):
    """Return x delayed by k steps, out of x with ``lags − 1`` zeros before it."""
    first = lags - 1 - k
    return padded[:, first : first + padded.shape[1] - lags + 1]


class causal_conv(Layer):
    """yₜ = Σₖ weightₖ·xₜ₋ₖ + bias, each channel for itself."""

    def forward(params, x):
        weight = params["weight"]  # (W, D)
        lags = len(weight)
        past = np.zeros((x.shape[0], lags - 1, x.shape[2]), x.dtype)
        padded = np.concatenate([past, x], axis=1)
        y = np.zeros_like(x) + params["bias"]
        for k in range(lags):
            y += weight[k] * lagged(padded, lags, k)
        return y, (padded, weight)

    def vjp(residuals, g):
        padded, weight = residuals
        T = g.shape[1]
        d_weight = np.zeros_like(weight)
        d_x = np.zeros_like(g)
        for k in range(len(weight)):
            d_weight[k] = rows(g * lagged(padded, len(weight), k)).sum(axis=0)
            d_x[:, : max(T - k, 0)] += weight[k] * g[:, k:]
        return {"weight": d_weight, "bias": rows(g).sum(axis=0)}, d_x

    def reference(params, x):
        shifted = [
            jnp.pad(x, ((0, 0), (k, 0), (0, 0)))[:, : x.shape[1]]
            for k in range(len(params["weight"]))
        ]
        return jnp.einsum("kd,kbtd->btd", params["weight"], jnp.stack(shifted)) + params["bias"]

    inputs = ({"weight": draw(403, 3, 5), "bias": draw(404, 5)}, draw(405, 2, 7, 5), {})
    bugs = """
    g is delayed once more where it is advanced
    x: jacobian not transposed
    - d_x[:, : max(T - k, 0)] += weight[k] * g[:, k:]
    + d_x[:, k:] += weight[k] * g[:, : max(T - k, 0)]

    the taps of the weight gradient run backwards
    params.weight: misplaced
    - d_weight[k] = rows(g * lagged(padded, len(weight), k)).sum(axis=0)
    + d_weight[k] = rows(g * padded[:, k : k + T]).sum(axis=0)

    the forward forgets the bias
    y: value
    - y = np.zeros_like(x) + params["bias"]
    + y = np.zeros_like(x)
    """


class token_shift(Layer):
    """yₜ = mix·xₜ + (1 − mix)·xₜ₋₁, as in RWKV."""

    def forward(params, x):
        mix = params["mix"]  # (D,)
        before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        return mix * x + (1.0 - mix) * before, (x, before, mix)

    def vjp(residuals, g):
        x, before, mix = residuals
        d_x = mix * g
        d_x[:, :-1] += (1.0 - mix) * g[:, 1:]
        return {"mix": rows(g * (x - before)).sum(axis=0)}, d_x

    def reference(params, x):
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return before + params["mix"] * (x - before)

    inputs = ({"mix": draw(1301, 5)}, STEPS, {})
    bugs = """
    np.roll gives the last token what the first one's predecessor would get
    x: mask leak
    - d_x = mix * g
    - d_x[:, :-1] += (1.0 - mix) * g[:, 1:]
    + d_x = mix * g + (1.0 - mix) * np.roll(g, -1, axis=1)

    (d_x, d_params) for (d_params, d_x)
    swapped
    - return {"mix": rows(g * (x - before)).sum(axis=0)}, d_x
    + return d_x, {"mix": rows(g * (x - before)).sum(axis=0)}
    """


class causal_mean(Layer):
    """yₜ is the mean of x up to t."""

    def forward(params, x):
        count = np.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]  # (T, 1)
        return np.cumsum(x, axis=1) / count, count

    def vjp(count, g):
        backwards = np.cumsum((g / count)[:, ::-1], axis=1)
        return {}, backwards[:, ::-1].copy()

    def reference(params, x):
        weights = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), x.dtype))
        return jnp.einsum("ts,bsd->btd", weights / weights.sum(axis=1, keepdims=True), x)

    inputs = ({}, STEPS, {})
    bugs = """
    the cumulative sum runs forward again
    x: jacobian not transposed
    - backwards = np.cumsum((g / count)[:, ::-1], axis=1)
    - return {}, backwards[:, ::-1].copy()
    + return {}, np.cumsum(g, axis=1) / count

    a division by integers makes d_x float64
    x: precision (float64)
    - return np.cumsum(x, axis=1) / count, count
    + return np.cumsum(x, axis=1) / count, np.arange(1, x.shape[1] + 1)[:, None]
    """


class masked_mean(Layer):
    """The mean over those times that a mask keeps."""

    def forward(params, x, *, mask):
        kept = mask[:, :, None].astype(x.dtype)  # (B, T, 1)
        count = kept.sum(axis=1)  # (B, 1)
        return (x * kept).sum(axis=1) / count, (kept, count)

    def vjp(residuals, g):
        kept, count = residuals
        return {}, kept * (g / count)[:, None]

    def reference(params, x, *, mask):
        return jnp.mean(x, axis=1, where=mask[:, :, None])

    inputs = (
        {},
        PADDED,
        {
            "mask": np.array(
                [[1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 0, 1, 0]], bool
            )
        },
    )
    bugs = """
    every time gets a share, also where the mask is off
    x: mask leak
    - return {}, kept * (g / count)[:, None]
    + return {}, np.repeat((g / count)[:, None], kept.shape[1], axis=1)

    the forward divides by the length and not by what is kept
    y: value
    - return (x * kept).sum(axis=1) / count, (kept, count)
    + return (x * kept).sum(axis=1) / x.shape[1], (kept, count)
    """


class max_pool(Layer):
    """The largest of each window over time, for each channel."""

    def forward(params, x, *, window, stride):
        starts = stride * np.arange((x.shape[1] - window) // stride + 1)
        windows = x[:, starts[:, None] + np.arange(window)]  # (B, P, W, D)
        best = windows.argmax(axis=2)  # (B, P, D)
        return windows.max(axis=2), (best, starts, x.shape)

    def vjp(residuals, g):
        best, starts, shape = residuals
        d_x = np.zeros(shape, g.dtype)
        b, _, d = np.indices(best.shape, sparse=True)
        np.add.at(d_x, (b, best + starts[:, None], d), g)
        return {}, d_x

    def reference(params, x, *, window, stride):
        first = range(0, x.shape[1] - window + 1, stride)
        return jnp.stack([x[:, i : i + window].max(axis=1) for i in first], axis=1)

    inputs = ({}, STEPS, {"window": 3, "stride": 1})
    bugs = """
    an entry that is the largest of two windows gets only one of them
    x: scatter
    - b, _, d = np.indices(best.shape, sparse=True)
    - np.add.at(d_x, (b, best + starts[:, None], d), g)
    + np.put_along_axis(d_x, best + starts[:, None], g, axis=1)
    """


plant(
    max_pool,
    {},
    draw(1304, 2, 9, 5),
    """
    the first of each window gets what the largest should get
    x: misplaced
    - b, _, d = np.indices(best.shape, sparse=True)
    - np.add.at(d_x, (b, best + starts[:, None], d), g)
    + d_x[:, starts] = g

    added to a copy that fancy indexing makes
    x: never written
    - b, _, d = np.indices(best.shape, sparse=True)
    - np.add.at(d_x, (b, best + starts[:, None], d), g)
    + windows = d_x[:, starts[:, None] + np.arange(3)]
    + windows += g[:, :, None] * (best[:, :, None] == np.arange(3)[:, None])
    """,
    window=3,
    stride=3,
)


class upsample(Layer):
    """Each time, so many times in a row."""

    def forward(params, x, *, times):
        return np.repeat(x, times, axis=1), (x.shape, times)

    def vjp(residuals, g):
        (B, T, D), times = residuals
        return {}, g.reshape(B, T, times, D).sum(axis=2)

    def reference(params, x, *, times):
        return x[:, jnp.arange(x.shape[1] * times) // times]

    inputs = ({}, STEPS, {"times": 3})
    bugs = """
    only the first of the repeats is read
    x: slice kept
    - return {}, g.reshape(B, T, times, D).sum(axis=2)
    + return {}, g[:, ::times].copy()
    """


class positional_scale(Layer):
    """Each entry times the number of its position and channel."""

    def forward(params, x):
        scale = params["scale"]  # (L, D), L not less than T
        return x * scale[: x.shape[1]], (x, scale)

    def vjp(residuals, g):
        x, scale = residuals
        d_scale = np.zeros_like(scale)
        d_scale[: x.shape[1]] = (g * x).sum(axis=0)
        return {"scale": d_scale}, g * scale[: x.shape[1]]

    def reference(params, x):
        return jnp.einsum("btd,td->btd", x, params["scale"][: x.shape[1]])

    inputs = ({"scale": draw(1305, 7, 5)}, STEPS, {})
    bugs = """
    the scale's gradient keeps the batch
    params.scale: missing sum
    - d_scale = np.zeros_like(scale)
    - d_scale[: x.shape[1]] = (g * x).sum(axis=0)
    + d_scale = g * x
    """


plant(
    positional_scale,
    {"scale": draw(1306, 11, 5)},
    PADDED,
    """
    the first example stands for the batch
    params.scale: slice kept
    - d_scale[: x.shape[1]] = (g * x).sum(axis=0)
    + d_scale[: x.shape[1]] = (g[:1] * x[:1]).sum(axis=0)

    g goes to x as it is
    x: missing factor (scale)
    - return {"scale": d_scale}, g * scale[: x.shape[1]]
    + return {"scale": d_scale}, g.copy()
    """,
)


class positional_offset(Layer):
    """Each entry plus the number of its position and channel."""

    def forward(params, x):
        offset = params["offset"]  # (L, D), L not less than T
        return x + offset[: x.shape[1]], offset

    def vjp(offset, g):
        d_offset = np.zeros_like(offset)
        d_offset[: g.shape[1]] = g.sum(axis=0)
        return {"offset": d_offset}, g.copy()

    def reference(params, x):
        return jax.vmap(jnp.add, (0, None))(x, params["offset"][: x.shape[1]])

    inputs = ({"offset": draw(1608, 11, 5)}, STEPS, {})
    bugs = """
    g itself is d_x
    shared memory
    - return {"offset": d_offset}, g.copy()
    + return {"offset": d_offset}, g
    """


class last_step(Layer):
    """The last time of each sequence."""

    def forward(params, x):
        return x[:, -1].copy(), x.shape

    def vjp(shape, g):
        d_x = np.zeros(shape, g.dtype)
        d_x[:, -1] = g
        return {}, d_x

    def reference(params, x):
        return x[:, -1]

    inputs = ({}, STEPS, {})
    bugs = """
    y is a view of x
    shared memory
    - return x[:, -1].copy(), x.shape
    + return x[:, -1], x.shape
    """


plant(
    causal_convolution,
    {"weight": draw(1304, 3, 5), "bias": draw(1305, 5)},
    WithState(draw(1306, 2, 7, 5), draw(1307, 2, 2, 5)),
    """
    the cotangent of the state after the text is forgotten
    x.x: missing term
    - d_padded[:, T:] = g.state

    the cotangent of the taps takes them in the order of the text
    params.weight: misplaced
    - d_params = {"weight": np.stack(d_weight)}
    + d_params = {"weight": np.stack(d_weight[::-1])}
    """,
)

plant(
    short_convolution,
    {"weight": draw(1303, 3, 5)},
    STEPS,
    """
    the text begins behind its own end
    y: value
    - past = init_cache(params, len(x))
    + past = x[:, 1 - len(params["weight"]) :]

    x is taken to feed a skip path, too
    x: wrong term
    - return d_params, d.x
    + return d_params, d.x + g
    """,
)

plant(
    selective_scan,
    {"A_log": draw(1308, 4, scale=0.5), "D": draw(1309, 4)},
    WithState(
        selective_scan.Inputs(
            draw(1310, 2, 5, 4, 3),
            np.exp(draw(1311, 2, 5, 4)) / 2,
            draw(1312, 2, 5, 2, 5),
            draw(1313, 2, 5, 2, 5),
        ),
        draw(1314, 2, 4, 5, 3),
    ),
    """
    the cotangent of the state does not pass from chunk to chunk
    params.A_log x.state x.x.b x.x.dt x.x.x: missing term
    - d_states[i] = over_all[i] * d_states[i + 1] + d_before[i]
    + d_states[i] = d_before[i]

    what decays over a whole chunk gives nothing to the decay
    params.A_log x.x.dt: missing term
    - d_decay[..., -1, 0] += (before * d_after).sum(axis=(-2, -1))

    the logarithm of the rate gets the cotangent of the rate
    params.A_log: missing factor
    - d_params = {"A_log": d_a * a.ravel(), "D": d_skip}
    + d_params = {"A_log": d_a, "D": d_skip}
    """,
    chunk_size=3,
)


def heads(seed, *last):
    """Draw queries, keys and values (2, 7, 3, ...) with a state, and what else ``last`` holds."""
    q, k, v = (draw(seed + i, 2, 7, 3, size) for i, size in enumerate((4, 4, 5)))
    parts = gated_delta_rule.Inputs(q, k / 2, v, *last) if last else QKV(q, k, v)
    return WithState(parts, draw(seed + 3, 2, 3, 4, 5))


plant(
    linear_attention,
    {},
    heads(1310),
    """
    scores above the diagonal have a cotangent
    x.x.q x.x.k: mask leak
    - d_scores = _causal(d_read @ v.mT)
    + d_scores = d_read @ v.mT

    a chunk gets the cotangent of the state before it
    x.x.k x.x.v: misplaced
    - d_after = d_states[1:]
    + d_after = d_states[:-1]
    """,
    chunk_size=3,
)

plant(
    gated_delta_rule,
    {},
    heads(1320, 1 / (1 + np.exp(draw(1324, 2, 7, 3))), -np.abs(draw(1325, 2, 7, 3))),
    """
    the cotangent of the state does not decay
    x.x.k x.x.v x.x.beta x.x.log_decay x.state: missing term
    - d_states[i] += over_all[i] * d_states[i + 1] - w[i].mT @ d_u[i]
    + d_states[i] += d_states[i + 1] - w[i].mT @ d_u[i]

    the inverse is not transposed
    x.x.k x.x.v x.x.beta x.x.log_decay: jacobian not transposed
    - e = inverse.mT @ d_u
    + e = inverse @ d_u
    """,
    chunk_size=3,
)

plant(
    delta_gates,
    {"A_log": draw(1330, 3), "bias": draw(1331, 3)},
    delta_gates.Gates(draw(1332, 2, 7, 3), draw(1333, 2, 7, 3)),
    """
    the slope of the decay is taken before the bias
    params.bias x.log_decay: wrong point
    - return Gates(beta, log_decay), Residuals(beta.copy(), log_decay.copy(), -rate * sigmoid(z))
    + slope = -rate * sigmoid(x.log_decay)
    + return Gates(beta, log_decay), Residuals(beta.copy(), log_decay.copy(), slope)

    the slope of the sigmoid lacks 1 − β
    x.beta: missing factor
    - return d_params, Gates(g.beta * beta * (1.0 - beta), d_a)
    + return d_params, Gates(g.beta * beta, d_a)
    """,
)
