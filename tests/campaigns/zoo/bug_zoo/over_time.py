"""Along time: scans, convolutions, pooling, shifts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, draw, plant_in, rows


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


class upsample(Layer):
    """Each time, so many times in a row."""

    def forward(params, x, *, times):
        return np.repeat(x, times, axis=1), (x.shape, times)

    def vjp(residuals, g):
        (B, T, D), times = residuals
        return {}, g.reshape(B, T, times, D).sum(axis=2)

    def reference(params, x, *, times):
        return x[:, jnp.arange(x.shape[1] * times) // times]


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


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


@plant(
    "leaky_scan: the cotangent is not carried from step to step",
    leaky_scan,
    {"decay": draw(401, 5, scale=0.5)},
    draw(402, 2, 7, 5),
    leaves="params.decay x",
    cause="missing term",
)
def not_carried(residuals, g):
    before, _ = residuals
    return {"decay": rows(g * before).sum(axis=0)}, g.copy()


CONV = {"weight": draw(403, 3, 5), "bias": draw(404, 5)}
X = draw(405, 2, 7, 5)
CAUSAL_CONV = (causal_conv, CONV, X)


@plant(
    "causal_conv: g is delayed once more where it is advanced",
    *CAUSAL_CONV,
    leaves="x",
    cause="jacobian not transposed",
)
def delayed_once_more(residuals, g):
    _, weight = residuals
    d_params, _ = causal_conv.vjp(residuals, g)
    d_x = np.zeros_like(g)
    for k in range(len(weight)):
        d_x[:, k:] += weight[k] * g[:, : max(g.shape[1] - k, 0)]
    return d_params, d_x


@plant(
    "causal_conv: the taps of the weight gradient run backwards",
    *CAUSAL_CONV,
    leaves="params.weight",
    cause="misplaced",
)
def taps_run_backwards(residuals, g):
    padded, weight = residuals
    d_params, d_x = causal_conv.vjp(residuals, g)
    d_weight = np.zeros_like(weight)
    for k in range(len(weight)):
        d_weight[k] = rows(g * padded[:, k : k + g.shape[1]]).sum(axis=0)
    return d_params | {"weight": d_weight}, d_x


def forget_the_bias(params, x):
    return causal_conv.forward({**params, "bias": np.zeros_like(params["bias"])}, x)


plant(
    "causal_conv: the forward forgets the bias",
    *CAUSAL_CONV,
    forward=forget_the_bias,
    leaves="y",
    cause="value",
)(causal_conv.vjp)


MIX = {"mix": draw(1301, 5)}
STEPS = draw(1302, 2, 7, 5)
TOKEN_SHIFT = (token_shift, MIX, STEPS)


@plant(
    "token_shift: np.roll gives the last token what the first one's predecessor would get",
    *TOKEN_SHIFT,
    leaves="x",
    cause="mask leak",
)
def rolled(residuals, g):
    _, _, mix = residuals
    d_params, _ = token_shift.vjp(residuals, g)
    return d_params, mix * g + (1.0 - mix) * np.roll(g, -1, axis=1)


@plant("token_shift: (d_x, d_params) for (d_params, d_x)", *TOKEN_SHIFT, cause="swapped")
def other_order(residuals, g):
    return token_shift.vjp(residuals, g)[::-1]


CAUSAL_MEAN = (causal_mean, {}, STEPS)


@plant(
    "causal_mean: the cumulative sum runs forward again",
    *CAUSAL_MEAN,
    leaves="x",
    cause="jacobian not transposed",
)
def forward_again(count, g):
    return {}, np.cumsum(g, axis=1) / count


def count_in_integers(params, x):
    y, _ = causal_mean.forward(params, x)
    return y, np.arange(1, x.shape[1] + 1)[:, None]


@plant(
    "causal_mean: a division by integers makes d_x float64",
    *CAUSAL_MEAN,
    forward=count_in_integers,
    leaves="x",
    cause="precision",
    says=("float64",),
)
def divided_by_integers(count, g):
    return {}, np.cumsum((g / count)[:, ::-1], axis=1)[:, ::-1].copy()


KEPT = np.array([[1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 0, 1, 0]], bool)
PADDED = draw(1303, 3, 7, 5)
MASKED_MEAN = (masked_mean, {}, PADDED)


@plant(
    "masked_mean: every time gets a share, also where the mask is off",
    *MASKED_MEAN,
    mask=KEPT,
    leaves="x",
    cause="mask leak",
)
def every_time_gets_a_share(residuals, g):
    kept, count = residuals
    return {}, np.repeat((g / count)[:, None], kept.shape[1], axis=1)


def divide_by_the_length(params, x, *, mask):
    y, (kept, count) = masked_mean.forward(params, x, mask=mask)
    return y * count / x.shape[1], (kept, count)


plant(
    "masked_mean: the forward divides by the length and not by what is kept",
    *MASKED_MEAN,
    mask=KEPT,
    forward=divide_by_the_length,
    leaves="y",
    cause="value",
)(masked_mean.vjp)
MAX_POOL = (max_pool, {}, STEPS)


@plant(
    "max_pool: an entry that is the largest of two windows gets only one of them",
    *MAX_POOL,
    window=3,
    stride=1,
    leaves="x",
    cause="scatter",
)
def one_window_only(residuals, g):
    best, starts, shape = residuals
    d_x = np.zeros(shape, g.dtype)
    np.put_along_axis(d_x, best + starts[:, None], g, axis=1)
    return {}, d_x


@plant(
    "max_pool: the first of each window gets what the largest should get",
    max_pool,
    {},
    draw(1304, 2, 9, 5),
    window=3,
    stride=3,
    leaves="x",
    cause="misplaced",
)
def first_of_each_window(residuals, g):
    _, starts, shape = residuals
    d_x = np.zeros(shape, g.dtype)
    d_x[:, starts] = g
    return {}, d_x


@plant(
    "max_pool: added to a copy that fancy indexing makes",
    *MAX_POOL,
    window=3,
    stride=2,
    leaves="x",
    cause="never written",
)
def added_to_a_copy(residuals, g):
    best, starts, shape = residuals
    d_x = np.zeros(shape, g.dtype)
    windows = d_x[:, starts[:, None] + np.arange(3)]  # (B, P, W, D)
    windows += g[:, :, None] * (best[:, :, None] == np.arange(3)[:, None])
    return {}, d_x


@plant(
    "upsample: only the first of the repeats is read",
    upsample,
    {},
    STEPS,
    times=3,
    leaves="x",
    cause="slice kept",
)
def first_of_the_repeats(residuals, g):
    _, times = residuals
    return {}, g[:, ::times].copy()


PLACES = {"scale": draw(1305, 7, 5)}


@plant(
    "positional_scale: the scale's gradient keeps the batch",
    positional_scale,
    PLACES,
    STEPS,
    leaves="params.scale",
    cause="missing sum",
)
def batch_is_kept(residuals, g):
    x, scale = residuals
    return {"scale": g * x}, g * scale


@plant(
    "positional_scale: the first example stands for the batch",
    positional_scale,
    {"scale": draw(1306, 11, 5)},
    PADDED,
    leaves="params.scale",
    cause="slice kept",
)
def first_example_only(residuals, g):
    x, scale = residuals
    d_scale = np.zeros_like(scale)
    d_scale[: x.shape[1]] = (g[:1] * x[:1]).sum(axis=0)
    return {"scale": d_scale}, g * scale[: x.shape[1]]


@plant(
    "positional_scale: g goes to x as it is",
    positional_scale,
    {"scale": draw(1307, 11, 5)},
    PADDED,
    leaves="x",
    cause="missing factor",
    says=("scale",),
)
def as_it_is(residuals, g):
    return positional_scale.vjp(residuals, g)[0], g.copy()
