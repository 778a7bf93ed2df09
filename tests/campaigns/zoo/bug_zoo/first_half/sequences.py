"""Time and heads: scans, convolutions, scales of heads."""

import numpy as np

from functional_lm.numerics import rows

from ..bug import Bug, draw, plant
from ..research_sequences import causal_conv, head_scale, lagged, leaky_scan

BUGS: list[Bug] = []


@plant(
    BUGS,
    "leaky_scan: the cotangent is not carried from step to step",
    leaky_scan,
    {"decay": draw(401, 5, scale=0.5)},
    draw(402, 2, 7, 5),
    leaves=("params.decay", "x"),
    cause="missing term",
)
def not_carried(residuals, g):
    before, _ = residuals
    return {"decay": rows(g * before).sum(axis=0)}, g.copy()


CONV = {"weight": draw(403, 3, 5), "bias": draw(404, 5)}
X = draw(405, 2, 7, 5)


@plant(
    BUGS,
    "causal_conv: g is delayed once more where it is advanced",
    causal_conv,
    CONV,
    X,
    leaves=("x",),
    cause="jacobian not transposed",
)
def delayed_once_more(residuals, g):
    padded, weight = residuals
    lags, T = len(weight), g.shape[1]
    d_weight = np.zeros_like(weight)
    d_x = np.zeros_like(g)
    for k in range(lags):
        d_weight[k] = rows(g * lagged(padded, lags, k)).sum(axis=0)
        d_x[:, k:] += weight[k] * g[:, : max(T - k, 0)]
    return {"weight": d_weight, "bias": rows(g).sum(axis=0)}, d_x


@plant(
    BUGS,
    "causal_conv: the taps of the weight gradient run backwards",
    causal_conv,
    CONV,
    X,
    leaves=("params.weight",),
    cause="misplaced",
)
def taps_run_backwards(residuals, g):
    padded, weight = residuals
    lags, T = len(weight), g.shape[1]
    d_weight = np.zeros_like(weight)
    d_x = np.zeros_like(g)
    for k in range(lags):
        d_weight[k] = rows(g * padded[:, k : k + T]).sum(axis=0)
        d_x[:, : max(T - k, 0)] += weight[k] * g[:, k:]
    return {"weight": d_weight, "bias": rows(g).sum(axis=0)}, d_x


def forget_the_bias(params, x):
    return causal_conv.forward({**params, "bias": np.zeros_like(params["bias"])}, x)


plant(
    BUGS,
    "causal_conv: the forward forgets the bias",
    causal_conv,
    CONV,
    X,
    forward=forget_the_bias,
    leaves=("y",),
    cause="value",
)(causal_conv.vjp)


@plant(
    BUGS,
    "head_scale: the loop over the batch starts at one",
    head_scale,
    {"scale": draw(406, 3)},
    draw(407, 5, 2, 3, 7),
    leaves=("params.scale",),
    cause="slice kept",
)
def loop_starts_at_one(residuals, g):
    x, scale = residuals
    d_scale = np.zeros_like(scale)
    for b in range(1, len(x)):
        d_scale += (g[b] * x[b]).sum(axis=(0, 2))
    return {"scale": d_scale}, g * scale[:, None]
