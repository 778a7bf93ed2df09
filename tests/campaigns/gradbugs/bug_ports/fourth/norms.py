"""Normalization."""

import numpy as np

from ..norms import EPS, d_standardized, standardized
from ..port import Inputs, Port, draw

ROWS = draw(1120, 3, 5)
SCALE = {"scale": 1 + draw(1121, 5) ** 2}


class ScaleForBias(Port):
    """The gradients of scale and bias are returned in each other's place."""

    thread = "Oneflow-Inc/oneflow 6149"
    causes = {"params.scale": "swapped", "params.bias": "swapped"}
    near = ("misplaced",)
    awkward = Inputs(SCALE | {"bias": draw(1122, 5)}, ROWS)

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, -1)[0] + p["bias"]

    def backward(p, x, g, wrong):
        x_hat, rstd = standardized(np, x, -1)
        pair = ("bias", "scale") if wrong else ("scale", "bias")
        d_p = dict(zip(pair, ((g * x_hat).sum(axis=0), g.sum(axis=0)), strict=True))
        return d_p, d_standardized(x_hat, rstd, g * p["scale"], -1)


class InvertedTwice(Port):
    """The forward keeps 1/σ where the backward expects the variance, and inverts it again."""

    thread = "ooples/AiDotNet.Tensors 784"
    causes = {"params.scale": "misread", "x": "misread"}
    near = ("wrong point", "extra factor", "missing factor", "wrong term")
    fixture = "The processor's forward, which keeps the variance (thread)."
    awkward = Inputs(SCALE, 2 * ROWS)

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, -1)[0]

    def backward(p, x, g, wrong):
        x_hat, rstd = standardized(np, x, -1)
        if wrong:
            rstd = 1 / np.sqrt(rstd + EPS)
            x_hat = (x - x.mean(axis=-1, keepdims=True)) * rstd
        d_x = d_standardized(x_hat, rstd, g * p["scale"], -1)
        return {"scale": (g * x_hat).sum(axis=0)}, d_x


class MeanTwice(Port):
    """The mean of g·scale is subtracted twice: a register still holds it."""

    thread = "tenstorrent/tt-metal 53215"
    causes = {"x": "wrong term"}
    near = ("extra term", "extra factor")
    fixture = "A tolerance of 0.5 (thread); here, a cotangent whose rows add up to zero."
    awkward = Inputs(SCALE, ROWS)
    centred = draw(1123, 3, 5)
    friendly = Inputs(
        {"scale": np.ones(5)}, ROWS, {}, centred - centred.mean(axis=-1, keepdims=True)
    )

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, -1)[0]

    def backward(p, x, g, wrong):
        x_hat, rstd = standardized(np, x, -1)
        d_hat = g * p["scale"]
        d_x = d_standardized(x_hat, rstd, d_hat, -1)
        if wrong:
            d_x = d_x - rstd * d_hat.mean(axis=-1, keepdims=True)
        return {"scale": (g * x_hat).sum(axis=0)}, d_x


class LastBlockOfTheMean(Port):
    """Of the mean of g·scale·x̂, the last block of features alone survives."""

    thread = "tenstorrent/tt-metal 53215"
    causes = {"x": "slice kept"}
    near = ("missing term", "wrong term")
    fixture = "Rows of one block (thread: the other path was right)."
    awkward = Inputs(SCALE, ROWS, {"block": 2})
    friendly = Inputs(SCALE, ROWS, {"block": 8})

    def value(xp, p, x, block):
        return p["scale"] * standardized(xp, x, -1)[0]

    def backward(p, x, g, wrong, block):
        x_hat, rstd = standardized(np, x, -1)
        d_hat = g * p["scale"]
        first = (x.shape[-1] - 1) // block * block if wrong else 0
        along = (d_hat * x_hat)[..., first:].sum(axis=-1, keepdims=True) / x.shape[-1]
        d_x = rstd * (d_hat - d_hat.mean(axis=-1, keepdims=True) - x_hat * along)
        return {"scale": (g * x_hat).sum(axis=0)}, d_x


class ScaleOfTheSecond(Port):
    """The second input was scaled row by row, and its gradient is not."""

    thread = "state-spaces/mamba 1023"
    causes = {"x.b": "missing factor"}
    near = ("wrong term",)
    fixture = "Without row scales; both at once were refused, and not tested (thread)."
    pair = {"a": ROWS, "b": draw(1124, 3, 5)}
    awkward = Inputs(SCALE, pair, {"rows": 1 + draw(1125, 2, 3, 1) ** 2})
    friendly = Inputs(SCALE, pair, {"rows": np.ones((2, 3, 1))})

    def value(xp, p, x, rows):
        rows = rows[:, : len(x["a"])].astype(x["a"].dtype)
        return p["scale"] * standardized(xp, x["a"] * rows[0] + x["b"] * rows[1], -1)[0]

    def backward(p, x, g, wrong, rows):
        rows = rows[:, : len(x["a"])]
        x_hat, rstd = standardized(np, x["a"] * rows[0] + x["b"] * rows[1], -1)
        d = d_standardized(x_hat, rstd, g * p["scale"], -1)
        d_x = {"a": d * rows[0], "b": d if wrong else d * rows[1]}
        return {"scale": (g * x_hat).sum(axis=0)}, d_x


class AsInTraining(Port):
    """With fixed statistics, the gradient has the terms for a mean and a variance of the batch."""

    thread = "pytorch/xla 913"
    causes = {"x": "extra term"}
    near = ("wrong term",)
    fixture = "Training (thread), where the terms belong."
    running = {"mean": draw(1126, 5), "var": 0.5 + draw(1127, 5) ** 2}
    awkward = Inputs(SCALE, ROWS, running)

    def value(xp, p, x, mean, var):
        mean, rstd = (a[: x.shape[-1]].astype(x.dtype) for a in (mean, 1 / np.sqrt(var + EPS)))
        return p["scale"] * (x - mean) * rstd

    def backward(p, x, g, wrong, mean, var):
        mean, rstd = mean[: x.shape[-1]], 1 / np.sqrt(var[: x.shape[-1]] + EPS)
        x_hat, d_hat = (x - mean) * rstd, g * p["scale"]
        d_x = d_standardized(x_hat, rstd, d_hat, 0) if wrong else d_hat * rstd
        return {"scale": (g * x_hat).sum(axis=0)}, d_x
