"""Normalization."""

import numpy as np

from ..norms import EPS, d_standardized, standardized
from ..port import Inputs, Port, draw


class InvertibleNorm(Port):
    """To undo scale and bias, they are read at the row's place in the tile, not the feature's."""

    thread = "deepspeedai/DeepSpeed 692"
    causes = {"params.scale": "misread"}
    near = ("wrong point",)
    fixture = "Scales and biases as they start hide it; the thread names no test."
    keeps_output = True
    shape = draw(970, 3, 6)
    awkward = Inputs({"scale": 1 + draw(971, 6) ** 2, "bias": draw(972, 6)}, shape, {"tile": 3})
    friendly = Inputs({"scale": np.ones(6), "bias": np.zeros(6)}, shape, {"tile": 3})

    def value(xp, p, x, tile):
        return p["scale"] * standardized(xp, x, -1)[0] + p["bias"]

    def backward(p, x, g, wrong, tile, y):
        rows, features = np.indices(x.shape)
        at = features // tile * tile + rows % tile if wrong else features
        x_hat = (y - p["bias"][at]) / p["scale"][at]
        d_x = d_standardized(*standardized(np, x, -1), g * p["scale"], -1)
        return {"scale": (g * x_hat).sum(axis=0), "bias": g.sum(axis=0)}, d_x


class TailOfTheStatistics(Port):
    """In the last, shorter round each thread starts one number on, not one vector on."""

    thread = "ROCm/rocm-libraries 9030"
    causes = {"params.scale": "misread", "x": "misread"}
    near = ("wrong point", "wrong term")
    fixture = "Batches that the threads divide without remainder (thread)."
    awkward = Inputs({"scale": draw(973, 3)}, draw(974, 10, 3))  # threads of two, three of them
    friendly = Inputs({"scale": draw(973, 3)}, draw(974, 6, 3))

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, 0)[0]

    def backward(p, x, g, wrong):
        order, whole = np.arange(len(x)), len(x) // 6 * 6
        if wrong:
            starts = whole + np.arange(-(-(len(x) - whole) // 2))
            tail = (starts[:, None] + np.arange(2)).ravel()
            order = np.append(order[:whole], tail[tail < len(x)])
        seen = x[order]
        rstd = 1 / np.sqrt(seen.var(axis=0) + EPS)
        x_hat = (x - seen.mean(axis=0)) * rstd
        d_x = d_standardized(x_hat, rstd, g * p["scale"], 0)
        return {"scale": (g * x_hat).sum(axis=0)}, d_x


class FlattenedTooLate(Port):
    """The size of a channel is taken from the last axis, before the axes are flattened."""

    thread = "linkedin/Liger-Kernel 1375"
    causes = {"": "exception"}
    near = ("structure",)
    fixture = "Inputs with three axes (thread)."
    awkward = Inputs({"scale": draw(975, 4)}, draw(976, 2, 4, 3, 2))
    friendly = Inputs({"scale": draw(975, 4)}, draw(976, 2, 4, 5))

    def value(xp, p, x):
        groups = standardized(xp, x.reshape(len(x), 2, -1), -1)[0]
        return (groups.reshape(*x.shape[:2], -1) * p["scale"][:, None]).reshape(x.shape)

    def backward(p, x, g, wrong):
        size = x.shape[-1] if wrong else x[0, 0].size
        flat, g = (a.reshape(*x.shape[:2], -1)[..., :size] for a in (x, g))
        x_hat, rstd = standardized(np, flat.reshape(len(x), 2, -1), -1)
        d_hat = (g * p["scale"][:, None]).reshape(x_hat.shape)
        d_scale = (g * x_hat.reshape(g.shape)).sum(axis=(0, 2))
        return {"scale": d_scale}, d_standardized(x_hat, rstd, d_hat, -1).reshape(x.shape)
