"""Over time: shifts, means, windows, repeats, positions."""

import numpy as np

from functional_lm.numerics import rows

from ..bug import Bug, draw, plant
from ..research_layers import Pair
from ..research_losses import positional_scale
from ..research_mixing import causal_mean, masked_mean, max_pool, mixup, token_shift, upsample

BUGS: list[Bug] = []

MIX = {"mix": draw(1301, 5)}
X = draw(1302, 2, 7, 5)


@plant(
    BUGS,
    "token_shift: np.roll gives the last token what the first one's predecessor would get",
    token_shift,
    MIX,
    X,
    leaves=("x",),
    cause="mask leak",
)
def rolled(residuals, g):
    x, before, mix = residuals
    d_x = mix * g + (1.0 - mix) * np.roll(g, -1, axis=1)
    return {"mix": rows(g * (x - before)).sum(axis=0)}, d_x


@plant(
    BUGS,
    "token_shift: (d_x, d_params) for (d_params, d_x)",
    token_shift,
    MIX,
    X,
    cause="swapped",
)
def other_order(residuals, g):
    x, before, mix = residuals
    d_x = mix * g
    d_x[:, :-1] += (1.0 - mix) * g[:, 1:]
    return d_x, {"mix": rows(g * (x - before)).sum(axis=0)}


@plant(
    BUGS,
    "causal_mean: the cumulative sum runs forward again",
    causal_mean,
    {},
    X,
    leaves=("x",),
    cause="jacobian not transposed",
)
def forward_again(count, g):
    return {}, np.cumsum(g, axis=1) / count


def count_in_integers(params, x):
    y, _ = causal_mean.forward(params, x)
    return y, np.arange(1, x.shape[1] + 1)[:, None]


@plant(
    BUGS,
    "causal_mean: a division by integers makes d_x float64",
    causal_mean,
    {},
    X,
    forward=count_in_integers,
    leaves=("x",),
    cause="precision",
    says=("float64",),
)
def divided_by_integers(count, g):
    return {}, np.cumsum((g / count)[:, ::-1], axis=1)[:, ::-1].copy()


KEPT = np.array([[1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 0, 1, 0]], bool)
PADDED = draw(1303, 3, 7, 5)


@plant(
    BUGS,
    "masked_mean: every time gets a share, also where the mask is off",
    masked_mean,
    {},
    PADDED,
    mask=KEPT,
    leaves=("x",),
    cause="mask leak",
)
def every_time_gets_a_share(residuals, g):
    kept, count = residuals
    return {}, np.repeat((g / count)[:, None], kept.shape[1], axis=1)


def divide_by_the_length(params, x, *, mask):
    y, (kept, count) = masked_mean.forward(params, x, mask=mask)
    return y * count / x.shape[1], (kept, count)


plant(
    BUGS,
    "masked_mean: the forward divides by the length and not by what is kept",
    masked_mean,
    {},
    PADDED,
    mask=KEPT,
    forward=divide_by_the_length,
    leaves=("y",),
    cause="value",
)(masked_mean.vjp)


@plant(
    BUGS,
    "max_pool: an entry that is the largest of two windows gets only one of them",
    max_pool,
    {},
    X,
    window=3,
    stride=1,
    leaves=("x",),
    cause="scatter",
)
def one_window_only(residuals, g):
    best, starts, shape = residuals
    d_x = np.zeros(shape, g.dtype)
    np.put_along_axis(d_x, best + starts[:, None], g, axis=1)
    return {}, d_x


@plant(
    BUGS,
    "max_pool: the first of each window gets what the largest should get",
    max_pool,
    {},
    draw(1304, 2, 9, 5),
    window=3,
    stride=3,
    leaves=("x",),
    cause="misplaced",
)
def first_of_each_window(residuals, g):
    _, starts, shape = residuals
    d_x = np.zeros(shape, g.dtype)
    d_x[:, starts] = g
    return {}, d_x


@plant(
    BUGS,
    "max_pool: added to a copy that fancy indexing makes",
    max_pool,
    {},
    X,
    window=3,
    stride=2,
    leaves=("x",),
    cause="never written",
)
def added_to_a_copy(residuals, g):
    best, starts, shape = residuals
    d_x = np.zeros(shape, g.dtype)
    windows = d_x[:, starts[:, None] + np.arange(3)]  # (B, P, W, D)
    windows += g[:, :, None] * (best[:, :, None] == np.arange(3)[:, None])
    return {}, d_x


@plant(
    BUGS,
    "upsample: only the first of the repeats is read",
    upsample,
    {},
    X,
    times=3,
    leaves=("x",),
    cause="slice kept",
)
def first_of_the_repeats(residuals, g):
    _, times = residuals
    return {}, g[:, ::times].copy()


PLACES = {"scale": draw(1305, 7, 5)}


@plant(
    BUGS,
    "positional_scale: the scale's gradient keeps the batch",
    positional_scale,
    PLACES,
    X,
    leaves=("params.scale",),
    cause="missing sum",
)
def batch_is_kept(residuals, g):
    x, scale = residuals
    return {"scale": g * x}, g * scale


@plant(
    BUGS,
    "positional_scale: the first example stands for the batch",
    positional_scale,
    {"scale": draw(1306, 11, 5)},
    PADDED,
    leaves=("params.scale",),
    cause="slice kept",
)
def first_example_only(residuals, g):
    x, scale = residuals
    d_scale = np.zeros_like(scale)
    d_scale[: x.shape[1]] = (g[:1] * x[:1]).sum(axis=0)
    return {"scale": d_scale}, g * scale[: x.shape[1]]


@plant(
    BUGS,
    "positional_scale: g goes to x as it is",
    positional_scale,
    {"scale": draw(1307, 11, 5)},
    PADDED,
    leaves=("x",),
    cause="missing factor",
    says=("scale",),
)
def as_it_is(residuals, g):
    x, scale = residuals
    d_scale = np.zeros_like(scale)
    d_scale[: x.shape[1]] = (g * x).sum(axis=0)
    return {"scale": d_scale}, g.copy()


@plant(
    BUGS,
    "mixup: a gets the share of b",
    mixup,
    {},
    Pair(draw(1308, 2, 7, 5), draw(1309, 2, 7, 5)),
    share=0.3,
    leaves=("x.a", "x.b"),
    cause="swapped",
)
def share_of_the_other(share, g):
    return {}, Pair((1.0 - share) * g, share * g)
