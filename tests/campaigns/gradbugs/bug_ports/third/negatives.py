"""More right backward passes that a public thread took for wrong, or found odd."""

import numpy as np

from .. import port
from ..norms import EPS
from ..port import Inputs, Port, draw

FIRST = len(port.ALL)
ROWS = draw(1050, 5, 3)


class HalvedSpectrum(Port):
    """All frequencies that the inverse transform will double are halved ahead of it."""

    thread = "locuslab/pytorch_fft 38"
    causes = {}
    awkward = Inputs({}, draw(1051, 2, 7))

    def value(xp, p, x):
        spectrum = xp.fft.rfft(x)
        return spectrum.real, spectrum.imag

    def backward(p, x, g, wrong):
        spectrum = g[0] + 1j * g[1]
        size = x.shape[-1]
        spectrum[..., 1 : (size + 1) // 2] /= 2
        return {}, size * np.fft.irfft(spectrum, size)


class ScaleOfTheGrid(Port):
    """The slope of a share has the grid's scale, which the forward applies elsewhere."""

    thread = "NVlabs/tiny-cuda-nn 32"
    causes = {}
    awkward = Inputs({"table": draw(1052, 9)}, 0.2 + 0.6 * np.random.default_rng(1053).random(5))

    def value(xp, p, x):
        at = 7 * x
        low = xp.floor(at).astype(int)
        return p["table"][low] * (1 - at + low) + p["table"][low + 1] * (at - low)

    def backward(p, x, g, wrong):
        low = np.floor(7 * x).astype(int)
        d_table, share = np.zeros_like(p["table"]), 7 * x - low
        np.add.at(d_table, low, g * (1 - share))
        np.add.at(d_table, low + 1, g * share)
        return {"table": d_table}, 7 * g * (p["table"][low + 1] - p["table"][low])


class Contrastive(Port):
    """The difference, not a less twice b, is what both gradients have."""

    thread = "BVLC/caffe 2312"
    causes = {}
    awkward = Inputs({}, {"a": ROWS, "b": draw(1054, 5, 3)}, {"same": np.array([1, 0, 1, 1, 0])})

    def value(xp, p, x, same):
        square = ((x["a"] - x["b"]) ** 2).sum(axis=-1)
        return xp.where(same, square, xp.maximum(0, 9 - square)).sum() / 10

    def backward(p, x, g, wrong, same):
        apart = x["a"] - x["b"]
        near = (apart**2).sum(axis=-1) < 9
        d_a = g * np.where(same, 1, -1.0 * near)[:, None] * apart / 5
        return {}, {"a": d_a, "b": -d_a}


class Triplet(Port):
    """The positive's gradient is positive less anchor: the square of its length counts."""

    thread = "Atcold/torch-TripletEmbedding 6"
    causes = {}
    awkward = Inputs({}, {name: draw(1055 + i, 5, 3) for i, name in enumerate("apn")})

    def value(xp, p, x):
        near, far = (((x["a"] - x[name]) ** 2).sum(axis=-1) for name in "pn")
        return xp.maximum(0, near - far + 1).sum() / 5

    def backward(p, x, g, wrong):
        a, near, far = x["a"], x["p"], x["n"]
        loss = ((a - near) ** 2 - (a - far) ** 2).sum(axis=-1, keepdims=True) + 1
        step = 2 * g * (loss > 0) / 5
        return {}, {"a": step * (far - near), "p": step * (near - a), "n": step * (a - far)}


class ThreeTerms(Port):
    """There is no fourth term: it has the mean of the normalized numbers as a factor, a zero."""

    thread = "BVLC/caffe 3878"
    causes = {}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return (x - x.mean(axis=0)) / xp.sqrt(x.var(axis=0) + EPS)

    def backward(p, x, g, wrong):
        y = ThreeTerms.value(np, p, x)
        d_x = g - g.mean(axis=0) - (g * y).mean(axis=0) * y
        return {}, d_x / np.sqrt(x.var(axis=0) + EPS)


class MeanHeldFixed(Port):
    """The variance is differentiated as if the mean in it were a constant."""

    thread = "tinygrad/tinygrad 4806"
    causes = {}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        return (centred**2).mean(axis=-1)

    def backward(p, x, g, wrong):
        return {}, 2 * g[..., None] * (x - x.mean(axis=-1, keepdims=True)) / x.shape[-1]


class NotDividedByTheBatch(Port):
    """The weight's gradient is the sum over the batch: what divides it is the loss."""

    thread = "apache/mxnet 2427"
    causes = {}
    awkward = Inputs({"weight": draw(1058, 3, 4)}, ROWS)

    def value(xp, p, x):
        return x @ p["weight"]

    def backward(p, x, g, wrong):
        return {"weight": x.T @ g}, g @ p["weight"].T


class PlaceForEmptyGroups(Port):
    """The buffer has one place more, to which groups without a member send what is dropped."""

    thread = "rusty1s/pytorch_scatter 373"
    causes = {}
    awkward = Inputs({}, draw(1059, 6), {"ids": np.array([0, 2, 0, 3, 2, 0])})

    def value(xp, p, x, ids):
        groups = [x[np.flatnonzero(ids == k)] for k in range(4)]
        return xp.stack([group.max() if len(group) else 0 * x[0] for group in groups])

    def backward(p, x, g, wrong, ids):
        members = [np.flatnonzero(ids == k) for k in range(4)]
        places = [m[np.argmax(x[m])] if len(m) else len(x) for m in members]
        d_x = np.zeros(len(x) + 1)
        d_x[places] = g
        return {}, d_x[:-1]


class AddedByProducts(Port):
    """A factor of two products gets what both send back, added, though they are multiplied."""

    thread = "karpathy/micrograd 72"
    causes = {}
    awkward = Inputs({}, {name: draw(1060 + i, 5) for i, name in enumerate("xyz")})

    def value(xp, p, x):
        return (x["x"] * x["y"]) * (x["x"] * x["z"])

    def backward(p, x, g, wrong):
        first, second = x["x"] * x["y"], x["x"] * x["z"]
        d_first, d_second = g * second, g * first
        d_x = d_first * x["y"]
        d_x = d_x + d_second * x["z"]
        return {}, {"x": d_x, "y": d_first * x["x"], "z": d_second * x["x"]}


class BiasOfZero(Port):
    """A bias of zero has a gradient that is not."""

    thread = "xnought/backprop-explainer 18"
    causes = {}
    awkward = Inputs({"weight": draw(1063, 3), "bias": np.zeros(1)}, ROWS)

    def value(xp, p, x):
        return xp.maximum(0, x @ p["weight"] + p["bias"])

    def backward(p, x, g, wrong):
        d = g * (x @ p["weight"] + p["bias"] > 0)
        return {"weight": x.T @ d, "bias": d.sum(keepdims=True)}, d[:, None] * p["weight"]


class NormalizedOnceMore(Port):
    """The loss divides by the batch, and so does the gradient, of a difference not divided."""

    thread = "BVLC/caffe 5024"
    causes = {}
    awkward = Inputs({}, {"a": ROWS, "b": draw(1064, 5, 3)})

    def value(xp, p, x):
        return ((x["a"] - x["b"]) ** 2).sum() / (2 * 5)

    def backward(p, x, g, wrong):
        d_a = g * (x["a"] - x["b"]) / 5
        return {}, {"a": d_a, "b": -d_a}


class ReusedBuffers(Port):
    """The gradients of gate and input come back in buffers with the names of others."""

    thread = "unslothai/unsloth 3314"
    causes = {}
    awkward = Inputs({}, {"e": ROWS, "g": draw(1065, 5, 3)})

    def value(xp, p, x):
        return x["e"] / (1 + xp.exp(-x["e"])) * x["g"]

    def backward(p, x, g, wrong):
        sigmoid = 1 / (1 + np.exp(-x["e"]))
        f = sigmoid * x["e"]
        buffers = {
            "w": f * x["g"],
            "e": g * f,
            "g": g * x["g"] * sigmoid * (1 + x["e"] * (1 - sigmoid)),
        }
        return {}, {"e": buffers["g"], "g": buffers["e"]}


class CotangentOfTheState(Port):
    """What stands for x is the cotangent of the state, and has the output's factor in it."""

    thread = "state-spaces/mamba 598"
    causes = {}
    awkward = Inputs({}, {"c": draw(1066, 2, 5), "value": draw(1067, 2, 5)}, {"decay": 0.6})

    def value(xp, p, x, decay):
        h, outputs = 0 * x["value"][:, 0], []
        for t in range(5):
            h = decay * h + x["value"][:, t]
            outputs.append(x["c"][:, t] * h)
        return xp.stack(outputs, 1)

    def backward(p, x, g, wrong, decay):
        powers = np.tril(decay ** np.maximum(0, np.arange(5)[:, None] - np.arange(5)))
        return {}, {"c": g * (x["value"] @ powers.T), "value": (g * x["c"]) @ powers}


NEGATIVES = port.ALL[FIRST:]
del port.ALL[FIRST:]
