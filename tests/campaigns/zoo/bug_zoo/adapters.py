"""Adapters of the library: low-rank ones, a bottleneck, a prefix, a prompt."""

import numpy as np

from functional_lm.heads import QKV
from functional_lm.layers import bottleneck, dora, linear, lora, prefix, prompt

from .bug import draw, plant

BASE = {"weight": draw(1, 5, 7)}
THIN = {"base": BASE, "a": draw(2, 5, 2), "b": draw(3, 2, 7)}

plant(
    lora,
    THIN,
    draw(4, 3, 5),
    """
    A gets a gradient without the scale
    params.a: constant factor
    - d_a = rows(x).T @ d_scaled
    + d_a = rows(x).T @ d_hidden

    x gets nothing through the thin matrices
    x: missing term
    - d_x = d_x + (d_dropped if multiplier is None else d_dropped * multiplier)
    + d_x = d_x + 0 * d_dropped
    """,
    base=linear,
    alpha=6.0,
)

plant(
    dora,
    {**THIN, "magnitude": np.abs(draw(5, 7))},
    draw(4, 3, 5),
    """
    the lengths are taken for constants
    params.a params.b params.base.weight: missing term
    - e = -c / r.lengths**2
    + e = 0 * c

    the lengths pass on their gradient without the magnitudes
    params.a params.b params.base.weight: missing factor
    - e = -c / r.lengths**2
    + e = -c / (r.magnitude * r.lengths)
    """,
    base=linear,
    alpha=6.0,
)

plant(
    bottleneck,
    {
        "base": BASE,
        "down": draw(6, 7, 3),
        "down_bias": draw(7, 3),
        "up": draw(8, 3, 7),
        "up_bias": draw(9, 7),
    },
    draw(4, 3, 5),
    """
    the base gets nothing past the network
    params.base.weight x: missing term
    - d_base, d_x = layer.vjp(r_base, g + (d_z @ down.T).reshape(h.shape))
    + d_base, d_x = layer.vjp(r_base, (d_z @ down.T).reshape(h.shape))

    hidden units below zero get a gradient
    params.base.weight params.down params.down_bias x: missing factor
    - d_z = (flat @ up.T) * (activated > 0)
    + d_z = flat @ up.T
    """,
    base=linear,
)

plant(
    prefix,
    {"keys": draw(12, 3, 2, 4), "values": draw(13, 3, 2, 5)},
    QKV(draw(14, 2, 4, 6, 4), draw(15, 2, 4, 2, 4), draw(16, 2, 4, 2, 5)),
    """
    the values get the mean over the texts
    params.values: constant factor (1/2)
    - d_params = {"keys": g.k[:, :P].sum(axis=0), "values": g.v[:, :P].sum(axis=0)}
    + d_values = g.v[:, :P].sum(axis=0) / max(len(g.v), 1)
    + d_params = {"keys": g.k[:, :P].sum(axis=0), "values": d_values}

    the keys get the gradient of the last positions
    params.keys: unknown
    - d_params = {"keys": g.k[:, :P].sum(axis=0), "values": g.v[:, :P].sum(axis=0)}
    + d_params = {"keys": g.k[:, -P:].sum(axis=0), "values": g.v[:, :P].sum(axis=0)}
    """,
)

plant(
    prompt,
    {"weight": draw(10, 3, 5)},
    draw(11, 2, 4, 5),
    """
    the rows get the mean over the texts
    params.weight: constant factor (1/2)
    - return {"weight": g[:, :P].sum(axis=0)}, g[:, P:].copy()
    + return {"weight": g[:, :P].sum(axis=0) / max(len(g), 1)}, g[:, P:].copy()

    the rows get the gradient of the first text
    params.weight: slice kept
    - return {"weight": g[:, :P].sum(axis=0)}, g[:, P:].copy()
    + return {"weight": g[0, :P].copy()}, g[:, P:].copy()
    """,
)
