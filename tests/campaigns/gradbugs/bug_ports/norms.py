"""Normalization."""

import numpy as np

from .port import Inputs, Port, draw, in_memory_order

EPS = 1e-5
ROWS = draw(1, 5, 7)  # five rows of seven features


def rstd_of(xp, x, axis=-1):
    """Return 1/√(mean of squares + ε)."""
    return 1 / xp.sqrt((x * x).mean(axis=axis, keepdims=True) + EPS)


def d_rms(x, rstd, d_hat, axis=-1):
    """Return the cotangent of x, given that of x̂ = x·rstd."""
    return rstd * d_hat - x * rstd**3 * (d_hat * x).mean(axis=axis, keepdims=True)


def standardized(xp, x, axis):
    """Return (x − mean)/σ and 1/σ."""
    centred = x - x.mean(axis=axis, keepdims=True)
    rstd = rstd_of(xp, centred, axis)
    return centred * rstd, rstd


def d_standardized(x_hat, rstd, d_hat, axis):
    """Return the cotangent of x, given that of x̂."""
    mean = d_hat.mean(axis=axis, keepdims=True)
    along = (d_hat * x_hat).mean(axis=axis, keepdims=True)
    return rstd * (d_hat - mean - x_hat * along)


class RmsNorm(Port):
    """The correction of each row is spread over the columns: each row gets those of all rows."""

    thread = "BobMcDear/attorch 17"
    causes = {"x": "misread"}
    near = ("wrong term", "missing sum", "transposed")
    fixture = "Tiles of one row; the shapes of the tests have no tile as tall as wide (thread)."
    awkward = Inputs({"scale": draw(2, 3)}, draw(3, 3, 3))
    friendly = Inputs({"scale": draw(2, 3)}, draw(3, 1, 3))

    def value(xp, p, x):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong):
        rstd, d_hat = rstd_of(np, x), g * p["scale"]
        rows = rstd[:, 0] ** 3 * (d_hat * x).mean(axis=-1)  # (B,)
        d_x = rstd * d_hat - x * (rows if wrong else rows[:, None])
        return {"scale": (g * x * rstd).sum(axis=0)}, d_x


class BlocksOfRows(Port):
    """The buffer of partial weight gradients has no place for the last, shorter block of rows."""

    thread = "BobMcDear/attorch 18"
    causes = {"params.bias": "slice kept", "params.scale": "slice kept"}
    fixture = "Batches that the block size divides, in all the shapes of the tests (thread)."
    awkward = Inputs({"scale": draw(4, 7), "bias": draw(5, 7)}, ROWS, {"block": 2})
    friendly = Inputs({"scale": draw(4, 7), "bias": draw(5, 7)}, ROWS[:4], {"block": 2})

    def value(xp, p, x, block):
        return p["scale"] * standardized(xp, x, -1)[0] + p["bias"]

    def backward(p, x, g, wrong, block):
        x_hat, rstd = standardized(np, x, -1)
        rows = len(x) // block * block if wrong else len(x)
        d_scale, d_bias = (g * x_hat)[:rows].sum(axis=0), g[:rows].sum(axis=0)
        d_x = d_standardized(x_hat, rstd, g * p["scale"], -1)
        return {"scale": d_scale, "bias": d_bias}, d_x


class TwiceTheWeight(Port):
    """The variance term is multiplied by the weight once more."""

    thread = "NVIDIA/Megatron-LM 6859"
    causes = {"x": "extra factor"}
    near = ("wrong term",)
    fixture = "Weights of one hide it; what was tested the thread does not say."
    awkward = Inputs({"scale": draw(6, 7)}, ROWS)
    friendly = Inputs({"scale": np.ones(7)}, ROWS)

    def value(xp, p, x):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong):
        rstd, scale = rstd_of(np, x), p["scale"]
        along = rstd**3 * x * (g * scale * x).mean(axis=-1, keepdims=True)
        d_x = g * scale * rstd - (scale * along if wrong else along)
        return {"scale": (g * x * rstd).sum(axis=0)}, d_x


class ZeroCentred(Port):
    """The forward forgets to add one to a zero-centred weight; the backward does not."""

    thread = "NVIDIA/Megatron-LM 6859"
    causes = {"y": "value"}
    fixture = "A weight that is not zero-centred (thread)."
    awkward = Inputs({"scale": draw(7, 7)}, ROWS, {"centred": True})
    friendly = Inputs({"scale": draw(7, 7)}, ROWS, {"centred": False})

    def value(xp, p, x, centred):
        return (p["scale"] + (1 if centred else 0)) * x * rstd_of(xp, x)

    def wrong_value(xp, p, x, centred):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong, centred):
        rstd = rstd_of(np, x)
        scale = p["scale"] + (1 if centred else 0)
        return {"scale": (g * x * rstd).sum(axis=0)}, d_rms(x, rstd, g * scale)


class NoWeight(Port):
    """The gradient of the input is not multiplied by the weight."""

    thread = "karpathy/llm.c 763"
    causes = {"x": "missing factor"}
    fixture = "Weights of one hide it; what was tested the thread does not say."
    awkward = Inputs({"scale": draw(8, 7)}, ROWS)
    friendly = Inputs({"scale": np.ones(7)}, ROWS)

    def value(xp, p, x):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong):
        rstd = rstd_of(np, x)
        d_hat = g if wrong else g * p["scale"]
        return {"scale": (g * x * rstd).sum(axis=0)}, d_rms(x, rstd, d_hat)


class SumsOfTheTile(Port):
    """The two sums of each row are taken over all rows of a tile."""

    thread = "flagos-ai/FlagGems 59"
    causes = {"x": "wrong term"}
    near = ("missing sum", "misread", "extra term")
    fixture = "Tiles of one row (thread)."
    awkward = Inputs({"scale": draw(9, 7)}, ROWS, {"tile": 5})
    friendly = Inputs({"scale": draw(9, 7)}, ROWS, {"tile": 1})

    def value(xp, p, x, tile):
        return p["scale"] * standardized(xp, x, -1)[0]

    def backward(p, x, g, wrong, tile):
        x_hat, rstd = standardized(np, x, -1)
        d_hat = g * p["scale"]
        sums = np.stack([d_hat.sum(axis=-1), (d_hat * x_hat).sum(axis=-1)])  # (2, B)
        if wrong:
            tiles = sums.reshape(2, -1, tile).sum(axis=-1)
            sums = np.repeat(tiles, tile, axis=-1)
        mean, along = sums[..., None] / x.shape[-1]
        return {"scale": (g * x_hat).sum(axis=0)}, rstd * (d_hat - mean - x_hat * along)


class TakenForTwoAxes(Port):
    """Rows and features are told apart as if x had two axes: an example counts as one row."""

    thread = "flagos-ai/FlagGems 5392"
    causes = {"x": "wrong term", "params.scale": "slice kept"}
    near = ("misread", "written in part")
    fixture = "Inputs with two axes (thread)."
    awkward = Inputs({"scale": draw(10, 7)}, draw(11, 2, 3, 7))
    friendly = Inputs({"scale": draw(10, 7)}, draw(11, 3, 7))

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, -1)[0]

    def backward(p, x, g, wrong):
        size = p["scale"].size
        x_hat, rstd = (a.reshape(-1, a.shape[-1]) for a in standardized(np, x, -1))
        d_hat, d_scale = (g * p["scale"]).reshape(-1, size), g.reshape(-1, size) * x_hat
        if wrong:  # (B, T·D), with the statistics of the first B of the B·T rows
            x_hat, d_hat, d_scale = (a.reshape(len(x), -1) for a in (x_hat, d_hat, d_scale))
            rstd = rstd[: len(x)]
        d_x = d_standardized(x_hat, rstd, d_hat, -1).reshape(x.shape)
        return {"scale": d_scale.sum(axis=0)[:size]}, d_x


class NoGradientOfTheWeight(Port):
    """The place of the weight's gradient is None."""

    thread = "unslothai/unsloth 4550"
    causes = {"params.scale": "never written"}
    near = ("structure",)
    fixture = "A weight that is not trained (thread)."
    awkward = Inputs({"scale": draw(12, 7)}, ROWS)

    def value(xp, p, x):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong):
        rstd = rstd_of(np, x)
        d_scale = None if wrong else (g * x * rstd).sum(axis=0)
        return {"scale": d_scale}, d_rms(x, rstd, g * p["scale"])


class WrittenOverTheCotangent(Port):
    """The input's gradient is written into g, which the weight's gradient still needs."""

    thread = "unslothai/unsloth 4550"
    causes = {"": "overwritten"}
    fixture = "A weight that is not trained (thread)."
    awkward = Inputs({"scale": draw(13, 7)}, ROWS)

    def value(xp, p, x):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong):
        rstd = rstd_of(np, x)
        d_x = g if wrong else np.empty_like(g)
        d_scale = (g * x * rstd).sum(axis=0)
        d_x[...] = d_rms(x, rstd, g * p["scale"])
        return {"scale": (g * x * rstd).sum(axis=0) if wrong else d_scale}, d_x


class PreNorm(Port):
    """The residual's cotangent is added before the norm's backward instead of after it."""

    thread = "Dao-AILab/quack 53"
    causes = {"x.branch": "wrong term", "x.residual": "wrong term"}
    near = ("extra factor", "missing term", "misread")
    fixture = "A loss that does not use the residual output hides it; the thread names no test."
    awkward = Inputs({}, {"branch": draw(14, 5, 7), "residual": draw(15, 5, 7)})
    friendly = Inputs({}, awkward.x, {}, (draw(16, 5, 7), np.zeros((5, 7))))

    def value(xp, p, x):
        total = x["branch"] + x["residual"]
        return total * rstd_of(xp, total), total

    def backward(p, x, g, wrong):
        total = x["branch"] + x["residual"]
        rstd = rstd_of(np, total)
        added = g[0] + g[1]
        d_total = d_rms(total, rstd, added) if wrong else d_rms(total, rstd, g[0]) + g[1]
        return {}, {"branch": d_total, "residual": d_total}


class BatchNormScale(Port):
    """The statistics' and the input's cotangents use g before it is multiplied by the scale."""

    thread = "denizyuret/Knet.jl 288"
    causes = {"x": "missing factor"}
    fixture = "The scales start as ones, which the tests kept (thread 289)."
    awkward = Inputs({"scale": draw(17, 7), "bias": draw(18, 7)}, ROWS)
    friendly = Inputs({"scale": np.ones(7), "bias": draw(18, 7)}, ROWS)

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, 0)[0] + p["bias"]

    def backward(p, x, g, wrong):
        x_hat, rstd = standardized(np, x, 0)
        d_x = d_standardized(x_hat, rstd, g if wrong else g * p["scale"], 0)
        return {"scale": (g * x_hat).sum(axis=0), "bias": g.sum(axis=0)}, d_x


class InverseDeviation(Port):
    """The saved 1/σ is taken for a variance, and inverted and rooted once more."""

    thread = "flagos-ai/FlagGems 5223"
    causes = {"params.scale": "wrong point", "x": "wrong point"}
    near = ("extra factor", "missing factor", "constant factor", "wrong term")
    fixture = "A variance near one in each channel; the test's reference made the same mistake."
    awkward = Inputs({"scale": draw(19, 7)}, draw(20, 5, 7, scale=3.0))
    friendly = Inputs({"scale": draw(19, 7)}, standardized(np, ROWS, 0)[0])

    def value(xp, p, x):
        return p["scale"] * standardized(xp, x, 0)[0]

    def backward(p, x, g, wrong):
        centred = x - x.mean(axis=0)
        rstd = rstd_of(np, centred, 0)
        if wrong:
            rstd = 1 / np.sqrt(rstd + EPS)
        x_hat = centred * rstd
        d_x = d_standardized(x_hat, rstd, g * p["scale"], 0)
        return {"scale": (g * x_hat).sum(axis=0)}, d_x


class Groups(Port):
    """The backward normalizes over all features, the forward over groups of them."""

    thread = "state-spaces/mamba 547"
    causes = {"x": "wrong term"}
    near = ("misread", "missing term")
    fixture = "One group (thread)."
    awkward = Inputs({"scale": draw(21, 6)}, draw(22, 5, 6), {"groups": 3})
    friendly = Inputs({"scale": draw(21, 6)}, draw(22, 5, 6), {"groups": 1})

    def value(xp, p, x, groups):
        parts = x.reshape(len(x), groups, -1)
        return p["scale"] * (parts * rstd_of(xp, parts)).reshape(x.shape)

    def backward(p, x, g, wrong, groups):
        parts = x.reshape(len(x), groups, -1)
        rstd = rstd_of(np, parts)
        d_hat = (g * p["scale"]).reshape(parts.shape)
        axes = (1, 2) if wrong else 2
        along = (d_hat * parts * rstd).mean(axis=axes, keepdims=True)
        d_x = rstd * (d_hat - parts * rstd * along)
        return {"scale": (g * (parts * rstd).reshape(x.shape)).sum(axis=0)}, d_x.reshape(x.shape)


class GivenMoments(Port):
    """Mean and deviation are given, but differentiated as if they came from x."""

    thread = "vlfeat/matconvnet 1174"
    causes = {"x": "extra term"}
    near = ("wrong term",)
    fixture = "No moments given (thread)."
    awkward = Inputs({}, ROWS, {"moments": (draw(23, 7), 1 + draw(24, 7) ** 2)})
    friendly = Inputs({}, ROWS, {"moments": None})

    def value(xp, p, x, moments):
        if moments is None:
            return standardized(xp, x, 0)[0]
        return (x - moments[0]) * moments[1]

    def backward(p, x, g, wrong, moments):
        if moments is None:
            return {}, d_standardized(*standardized(np, x, 0), g, 0)
        if wrong:
            return {}, d_standardized((x - moments[0]) * moments[1], moments[1], g, 0)
        return {}, moments[1] * g


class NotContiguous(Port):
    """g is read as if it were contiguous."""

    thread = "flagos-ai/FlagGems 1082"
    causes = {"": "layout"}
    fixture = "Contiguous cotangents (thread)."
    awkward = Inputs({"scale": draw(25, 7)}, ROWS)
    friendly = awkward

    def value(xp, p, x):
        return p["scale"] * x * rstd_of(xp, x)

    def backward(p, x, g, wrong):
        rstd = rstd_of(np, x)
        if wrong:
            g = in_memory_order(g)
        return {"scale": (g * x * rstd).sum(axis=0)}, d_rms(x, rstd, g * p["scale"])
