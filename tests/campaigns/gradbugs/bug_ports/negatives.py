"""Right backward passes that a public thread took for wrong."""

import numpy as np

from . import port
from .port import Inputs, Port, d_softmax, draw, log_sum_exp, softmax

FIRST = len(port.ALL)
ROWS = draw(800, 5, 3)
LABELS = np.array([1, 0, 2, 2, 1])


class HalfAndTwice(Port):
    """The mixed entry's gradient is kept as a half, and doubled in the next step."""

    thread = "graphdeco-inria/gaussian-splatting 596"
    causes = {}
    awkward = Inputs({}, np.stack([1 + draw(801, 5) ** 2, draw(802, 5) / 4, 2 + 0 * LABELS], 1))

    def value(xp, p, x):
        a, b, c = (x[:, i] for i in range(3))
        det = a * c - b * b
        dx, dy = 0.7, -0.3
        return xp.exp(-(c * dx * dx + a * dy * dy) / (2 * det) + b * dx * dy / det)

    def backward(p, x, g, wrong):
        a, b, c = x.T
        det, dx, dy = a * c - b * b, 0.7, -0.3
        d_power = g * HalfAndTwice.value(np, p, x)
        u, half, w = (-0.5 * d_power * s for s in (dx * dx, dx * dy, dy * dy))
        d_a = (-c * c * u + 2 * b * c * half + (det - a * c) * w) / det**2
        d_c = (-a * a * w + 2 * a * b * half + (det - a * c) * u) / det**2
        d_b = 2 * (b * c * u - (det + 2 * b * b) * half + a * b * w) / det**2
        return {}, np.stack([d_a, d_b, d_c], -1)


class FourthPlace(Port):
    """The last of three numbers is kept in the fourth place, and read from there."""

    thread = "graphdeco-inria/gaussian-splatting 567"
    causes = {}
    awkward = Inputs({}, draw(803, 5, 3))

    def value(xp, p, x):
        return 0.5 * x[:, 0] + 0.2 * x[:, 1] ** 2 + x[:, 2] ** 3

    def backward(p, x, g, wrong):
        kept = np.zeros((len(x), 4))
        kept[:, 0], kept[:, 1], kept[:, 3] = 0.5 * g, 0.4 * x[:, 1] * g, 3 * x[:, 2] ** 2 * g
        return {}, kept[:, [0, 1, 3]]


class LogisticOutput(Port):
    """Output less target: the sigmoid's slope cancels against the cross-entropy's."""

    thread = "rasbt/python-machine-learning-book-2nd-edition 54"
    causes = {}
    awkward = Inputs({"weight": draw(804, 3)}, ROWS, {"target": LABELS % 2})

    def value(xp, p, x, target):
        y = 1 / (1 + xp.exp(-(x @ p["weight"])))
        return -(target * xp.log(y) + (1 - target) * xp.log(1 - y)).sum()

    def backward(p, x, g, wrong, target):
        d = g * (1 / (1 + np.exp(-(x @ p["weight"]))) - target)
        return {"weight": x.T @ d}, d[:, None] * p["weight"]


class SoftmaxOutput(Port):
    """Probabilities less labels, without a step of its own for the softmax."""

    thread = "hankcs/CS224n 17"
    causes = {}
    awkward = Inputs({}, ROWS, {"labels": LABELS})

    def value(xp, p, x, labels):
        return -xp.log((softmax(xp, x) * np.eye(3)[labels]).sum(axis=-1)).sum()

    def backward(p, x, g, wrong, labels):
        return {}, g * (softmax(np, x) - np.eye(3)[labels])


class SoftTargets(Port):
    """The gradient by the logits is the difference of two distributions."""

    thread = "yjxiong/caffe 171"
    causes = {}
    awkward = Inputs({}, ROWS, {"teacher": softmax(np, draw(805, 5, 3))})

    def value(xp, p, x, teacher):
        return log_sum_exp(xp, x) - (x * teacher).sum(axis=-1)

    def backward(p, x, g, wrong, teacher):
        return {}, g[:, None] * (softmax(np, x) - teacher)


class Confident(Port):
    """The gradient of a saturated softmax is nearly zero."""

    thread = "keras-team/keras 5881"
    causes = {}
    awkward = Inputs({}, 12 * ROWS)

    def value(xp, p, x):
        return softmax(xp, x)

    def backward(p, x, g, wrong):
        return {}, d_softmax(softmax(np, x), g)


class EluByItsOutput(Port):
    """The slope is written in terms of the output: y + 1 for exp(x)."""

    thread = "hughperkins/DeepCL 46"
    causes = {}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return xp.where(x >= 0, x, xp.exp(xp.minimum(x, 0)) - 1)

    def backward(p, x, g, wrong):
        y = EluByItsOutput.value(np, p, x)
        return {}, g * np.where(y >= 0, 1, y + 1)


class SlopesOfOutputs(Port):
    """The functions for slopes take the output where one expects the input."""

    thread = "pjreddie/darknet 2151"
    causes = {}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return 1 / (1 + xp.exp(-x)) + xp.tanh(x)

    def backward(p, x, g, wrong):
        a, b = 1 / (1 + np.exp(-x)), np.tanh(x)
        return {}, g * ((1 - a) * a + 1 - b * b)


class MaskedLater(Port):
    """What lies above the diagonal is computed, and masked further down."""

    thread = "state-spaces/mamba 520"
    causes = {}
    awkward = Inputs({}, {"decay": -np.abs(draw(806, 2, 5)), "value": draw(807, 2, 5)})

    def value(xp, p, x):
        total = xp.cumsum(x["decay"], axis=1)
        between = xp.exp(xp.where(np.tri(5, dtype=bool), total[:, :, None] - total[:, None], -1e30))
        return (between @ x["value"][..., None])[..., 0]

    def backward(p, x, g, wrong):
        total = np.cumsum(x["decay"], axis=1)
        between = np.exp(total[:, :, None] - total[:, None])  # its upper half is not used
        d_between = np.tril(g[:, :, None] * x["value"][:, None] * between)
        d_total = d_between.sum(axis=2) - d_between.sum(axis=1)
        d_decay = np.cumsum(d_total[:, ::-1], axis=1)[:, ::-1]
        return {}, {"decay": d_decay, "value": (g[:, None] @ np.tril(between))[:, 0]}


class Unpooling(Port):
    """Where several entries are the largest, differences have no one answer."""

    thread = "pytorch/pytorch 67658"
    causes = {}
    awkward = Inputs({}, draw(808, 2, 3), {"places": np.array([[0, 4, 2], [5, 1, 3]])})

    def value(xp, p, x, places):
        return xp.einsum("bi,bij->bj", x, np.eye(6)[places].astype(x.dtype))

    def backward(p, x, g, wrong, places):
        return {}, np.take_along_axis(g, places, 1)


class ScatterThatAdds(Port):
    """The values scattered get a gather back, since the scatter adds."""

    thread = "tracel-ai/burn 4064"
    causes = {}
    awkward = Inputs({}, {"into": draw(809, 7), "values": draw(810, 5)}, {"ids": LABELS})

    def value(xp, p, x, ids):
        return x["into"] + x["values"] @ np.eye(7)[ids].astype(x["into"].dtype)

    def backward(p, x, g, wrong, ids):
        return {}, {"into": g, "values": g[ids]}


class OutputAsCotangent(Port):
    """What is passed to the backward is its cotangent, here the output itself."""

    thread = "apache/mxnet 18539"
    causes = {}
    awkward = Inputs({}, {"a": draw(811, 5), "b": draw(812, 5)})

    def value(xp, p, x):
        return 2 * x["a"] + x["b"]

    def backward(p, x, g, wrong):
        return {}, {"a": 2 * g, "b": g}


class Quotient(Port):
    """Minus y over the divisor once: y has been divided by it already."""

    thread = "apache/tvm 2633"
    causes = {}
    awkward = Inputs({}, {"a": draw(813, 5), "b": 2 + np.abs(draw(814, 5))})

    def value(xp, p, x):
        return x["a"] / x["b"]

    def backward(p, x, g, wrong):
        return {}, {"a": g / x["b"], "b": -g * (x["a"] / x["b"]) / x["b"]}


class FixedExponent(Port):
    """The exponent, a plain number, gets no gradient."""

    thread = "karpathy/micrograd 17"
    causes = {}
    awkward = Inputs({}, ROWS, {"exponent": 3})

    def value(xp, p, x, exponent):
        return x**exponent

    def backward(p, x, g, wrong, exponent):
        return {}, g * exponent * x ** (exponent - 1)


class FocalWeight(Port):
    """The weight of the focal loss is differentiated as well."""

    thread = "kuangliu/pytorch-retinanet 12"
    causes = {}
    awkward = Inputs({}, draw(815, 5), {"gamma": 2})

    def value(xp, p, x, gamma):
        probs = 1 / (1 + xp.exp(-x))
        return -((1 - probs) ** gamma) * xp.log(probs)

    def backward(p, x, g, wrong, gamma):
        probs = 1 / (1 + np.exp(-x))
        slope = gamma * probs * np.log(probs) - (1 - probs)
        return {}, g * (1 - probs) ** gamma * slope


class SinglePrecision(Port):
    """Differences in single precision do not see that the gradient is right."""

    thread = "CharlesShang/DCNv2 13"
    causes = {}
    awkward = Inputs(
        {}, {"image": draw(816, 11), "at": 1 + 8 * np.random.default_rng(817).random(5)}
    )

    def value(xp, p, x):
        left = xp.floor(x["at"]).astype(int)
        share = x["at"] - left
        return (1 - share) * x["image"][left] + share * x["image"][left + 1]

    def backward(p, x, g, wrong):
        left = np.floor(x["at"]).astype(int)
        share, d_image = x["at"] - left, np.zeros_like(x["image"])
        np.add.at(d_image, left, (1 - share) * g)
        np.add.at(d_image, left + 1, share * g)
        return {}, {"image": d_image, "at": g * (x["image"][left + 1] - x["image"][left])}


NEGATIVES = port.ALL[FIRST:]
del port.ALL[FIRST:]
