"""Entrywise functions, products, quantization and indices."""

import math

import numpy as np

from ..port import Inputs, Port, draw

ROWS = draw(980, 5, 3)
LIMIT = (
    1.5  # of quantized numbers; rounding is a given shift, as a straight-through gradient sees it
)
SHIFT = 0.3 * draw(981, 5, 3)


class CumulativeProduct(Port):
    """The sum of what follows is divided by the entry, and 0/0 is set to zero."""

    thread = "tensorflow/tensorflow 119430"
    causes = {"x": "written in part"}
    near = ("extra mask", "missing term")
    fixture = "Inputs without a zero (thread)."
    zeros = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    awkward = Inputs({}, np.where(zeros, 0, draw(982, 3, 5)))
    friendly = Inputs({}, draw(982, 3, 5))

    def value(xp, p, x):
        total, products = 1 + 0 * x[:, 0], []
        for t in range(x.shape[1]):
            total = total * x[:, t]
            products.append(total)
        return xp.stack(products, 1)

    def backward(p, x, g, wrong):
        if wrong:
            after = np.cumsum((g * np.cumprod(x, axis=1))[:, ::-1], axis=1)[:, ::-1]
            return {}, np.divide(after, x, out=np.zeros_like(x), where=x != 0)
        d_x, after = np.empty_like(x), np.zeros_like(x[:, 0])
        ahead = np.cumprod(np.concatenate([np.ones_like(x[:, :1]), x[:, :-1]], 1), axis=1)
        for t in reversed(range(x.shape[1])):
            after = g[:, t] + after  # by the product ahead of t and x[t]
            d_x[:, t] = ahead[:, t] * after
            after = after * x[:, t]
        return {}, d_x


class ProductOfSegments(Port):
    """Each factor's gradient is the product divided by the factor: NaN at zero."""

    thread = "rusty1s/pytorch_scatter 189"
    causes = {"x": "not finite"}
    near = ("written in part",)
    fixture = "Factors that are not zero (thread)."
    ids = {"ids": np.array([0, 1, 0, 2, 1, 0])}
    awkward = Inputs({}, np.array([0.7, -1.2, 0.0, 0.4, 1.9, -0.8]), ids)
    friendly = Inputs({}, np.array([0.7, -1.2, 0.3, 0.4, 1.9, -0.8]), ids)

    def value(xp, p, x, ids):
        return xp.stack([math.prod(x[i] for i in np.flatnonzero(ids == k)) for k in range(3)])

    def backward(p, x, g, wrong, ids):
        if wrong:
            with np.errstate(divide="ignore", invalid="ignore"):
                return {}, (g * ProductOfSegments.value(np, p, x, ids))[ids] / x
        others = [np.flatnonzero((ids == ids[i]) & (np.arange(len(x)) != i)) for i in range(len(x))]
        return {}, g[ids] * np.array([x[other].prod() for other in others])


class ScaleOfTheQuantized(Port):
    """The scale's gradient is taken with the cotangent of the input, where the clip has cut it."""

    thread = "pytorch/pytorch 42034"
    causes = {"params.scale": "extra mask"}
    near = ("misread", "extra factor", "missing term")
    fixture = "Nothing out of range hides it; the thread names no test."
    awkward = Inputs({"scale": 0.5 + np.abs(draw(983, 3))}, 2 * ROWS, {"shift": SHIFT})
    friendly = Inputs({"scale": 0.5 + np.abs(draw(983, 3))}, 0.1 * ROWS, {"shift": SHIFT})

    def value(xp, p, x, shift):
        return p["scale"] * xp.clip(x / p["scale"] + shift, -LIMIT, LIMIT)

    def backward(p, x, g, wrong, shift):
        whole = x / p["scale"] + shift
        inside = np.abs(whole) < LIMIT
        d_x = g * inside
        slope = np.clip(whole, -LIMIT, LIMIT) - inside * x / p["scale"]
        return {"scale": ((d_x if wrong else g) * slope).sum(axis=0)}, d_x


class PastTheClip(Port):
    """The straight-through gradient passes where the clip has cut the value off."""

    thread = "microsoft/nni 3160"
    causes = {"x": "mask leak"}
    near = ("missing factor",)
    fixture = "Nothing out of range hides it; the thread names no test."
    awkward = Inputs({}, 2 * ROWS, {"shift": SHIFT})
    friendly = Inputs({}, 0.1 * ROWS, {"shift": SHIFT})

    def value(xp, p, x, shift):
        return xp.clip(x + shift, -LIMIT, LIMIT)

    def backward(p, x, g, wrong, shift):
        return {}, g if wrong else g * (np.abs(x + shift) < LIMIT)


class TwiceAsSteep(Port):
    """Within the window of width 2w the slope is 1/w, not 1/2w."""

    thread = "fangwei123456/spikingjelly 412"
    causes = {"x": "wrong term"}
    near = ("constant factor", "extra factor", "missing factor")
    fixture = "Numbers outside of the window hide it; the thread names no test."
    awkward = Inputs({}, ROWS, {"width": 0.7})
    friendly = Inputs({}, 3 + np.abs(ROWS), {"width": 0.7})

    def value(xp, p, x, width):
        outside = 0.1 * (x - xp.sign(x) * width) + (x > 0)
        return xp.where(xp.abs(x) <= width, x / (2 * width) + 0.5, outside)

    def backward(p, x, g, wrong, width):
        return {}, g * np.where(np.abs(x) <= width, (1 if wrong else 0.5) / width, 0.1)


class Minimum(Port):
    """The cotangent of a minimum goes to the larger of the two."""

    thread = "LuisaGroup/LuisaCompute 203"
    causes = {"x.a": "swapped", "x.b": "swapped"}
    near = ("misplaced",)
    awkward = Inputs({}, {"a": ROWS, "b": draw(984, 5, 3)})

    def value(xp, p, x):
        return xp.minimum(x["a"], x["b"])

    def backward(p, x, g, wrong):
        first = x["a"] > x["b"] if wrong else x["a"] < x["b"]
        return {}, {"a": g * first, "b": g * ~first}


class SafeCubeRoot(Port):
    """To avoid the infinite slope at zero, the derivative is cut off below it."""

    thread = "mitsuba-renderer/drjit 323"
    causes = {"x": "extra mask"}
    near = ("written in part",)
    fixture = "Positive numbers hide it; the thread names no test."
    awkward = Inputs({}, ROWS)
    friendly = Inputs({}, np.abs(ROWS))

    def value(xp, p, x):
        return xp.cbrt(x)

    def backward(p, x, g, wrong):
        d_x = g / (3 * np.cbrt(x) ** 2)
        return {}, d_x * (x > 0) if wrong else d_x


class LoadExponent(Port):
    """Neither gradient uses g; and powers of e stand in for those of two."""

    thread = "tenstorrent/tt-metal 6533"
    causes = {"x.a": "g ignored", "x.b": "g ignored"}
    awkward = Inputs({}, {"a": draw(985, 5), "b": draw(986, 5)})

    def value(xp, p, x):
        return x["a"] * xp.exp2(x["b"])

    def backward(p, x, g, wrong):
        if wrong:
            power = math.log(2) * np.exp(x["b"])
            return {}, {"a": power, "b": math.log(2) * x["a"] * power}
        power = np.exp2(x["b"])
        return {}, {"a": g * power, "b": math.log(2) * g * x["a"] * power}


class SlopeOfTheLastAxis(Port):
    """The slope below zero is that of the place along the last axis, not of the channel."""

    thread = "flagos-ai/FlagGems 4992"
    causes = {"x": "misread"}
    near = ("transposed", "wrong point")
    fixture = "Inputs whose last axis is the channels' (thread)."
    awkward = Inputs({"slope": draw(987, 3)}, draw(988, 2, 3, 3))
    friendly = Inputs({"slope": draw(987, 3)}, ROWS)

    def value(xp, p, x):
        slope = p["slope"].reshape(-1, *[1] * (x.ndim - 2))
        return xp.where(x >= 0, x, slope * x)

    def backward(p, x, g, wrong):
        slope = p["slope"].reshape(-1, *[1] * (x.ndim - 2))
        d_slope = np.where(x >= 0, 0, g * x).sum(axis=(0, *range(2, x.ndim)))
        return {"slope": d_slope}, g * np.where(x >= 0, 1, p["slope"] if wrong else slope)


class SigmoidOfX(Port):
    """The slope of the sigmoid, y·(1 − y), is computed from the input."""

    thread = "BoltzmannEntropy/interviews.ai 15"
    causes = {"x": "wrong point"}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return 1 / (1 + xp.exp(-x))

    def backward(p, x, g, wrong):
        y = x if wrong else 1 / (1 + np.exp(-x))
        return {}, g * y * (1 - y)


class Distances(Port):
    """The gradient of a distance is the Euclidean one, whatever the norm."""

    thread = "flagos-ai/FlagGems 5023"
    causes = {"x.a": "missing factor", "x.b": "missing factor"}
    near = ("wrong point", "wrong term", "misread")
    fixture = "The Euclidean norm (thread)."
    points = {"a": draw(989, 3, 5), "b": draw(990, 2, 5)}
    awkward = Inputs({}, points, {"power": 3})
    friendly = Inputs({}, points, {"power": 2})

    def value(xp, p, x, power):
        apart = xp.abs(x["a"][:, None] - x["b"])
        return (apart**power).sum(axis=-1) ** (1 / power)

    def backward(p, x, g, wrong, power):
        apart = x["a"][:, None] - x["b"]
        share = apart / Distances.value(np, p, x, power)[..., None]
        slope = share if wrong else np.sign(share) * np.abs(share) ** (power - 1)
        d_apart = g[..., None] * slope
        return {}, {"a": d_apart.sum(axis=1), "b": -d_apart.sum(axis=0)}


class Largest(Port):
    """The largest entries' cotangents go to fixed places, the same in each row."""

    thread = "ml-explore/mlx 1428"
    causes = {"x": "misplaced"}
    near = ("misread",)
    awkward = Inputs({}, draw(991, 3, 7), {"count": 2})

    def value(xp, p, x, count):
        return xp.sort(x, axis=-1)[:, -count:]

    def backward(p, x, g, wrong, count):
        places = np.argsort(x, axis=-1)[:, -count:]
        if wrong:  # as the thread prints it
            places = np.broadcast_to(x.shape[1] - 1 - count + np.arange(count), places.shape)
        d_x = np.zeros_like(x)
        np.put_along_axis(d_x, places, g, -1)
        return {}, d_x


class PaddingRow(Port):
    """The row of the table that stands for padding gets a gradient."""

    thread = "pytorch/pytorch 26302"
    causes = {"params.table": "mask leak"}
    near = ("extra term",)
    fixture = "Bags without padding hide it; the processor's version was right (thread)."
    table = {"table": draw(992, 7, 3)}
    awkward = Inputs(table, draw(993, 2, 5), {"ids": np.array([[4, 0, 6, 4, 1], [2, 4, 5, 2, 3]])})
    friendly = Inputs(table, draw(993, 2, 5), {"ids": np.array([[1, 0, 6, 5, 1], [2, 3, 5, 2, 3]])})

    def value(xp, p, x, ids):
        return xp.einsum("bj,bjd->bd", x * (ids != 4), p["table"][ids])

    def backward(p, x, g, wrong, ids):
        kept, d_table = ids != 4, np.zeros_like(p["table"])
        shares = x if wrong else x * kept
        np.add.at(d_table, ids, shares[..., None] * g[:, None])
        return {"table": d_table}, kept * np.einsum("bd,bjd->bj", g, p["table"][ids])
