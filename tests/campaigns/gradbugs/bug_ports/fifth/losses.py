"""Losses, and an image that a loss is taken of."""

import numpy as np

from ..port import Inputs, Port, draw, log_sum_exp, softmax

ROWS = draw(1320, 5, 3)


class NothingFits(Port):
    """Where no alignment fits, the loss is zero, and its gradient the softmax that is left over.

    Each row stands for a sequence, and its label for the one alignment that fits.
    """

    thread = "rwth-i6/returnn 1835"
    causes = {"x": "mask leak"}
    near = ("extra term",)
    fixture = "Sequences that are long enough (thread)."
    awkward = Inputs({}, ROWS, {"fits": np.array([True, False, True, False, True])})
    friendly = Inputs({}, ROWS, {"fits": np.array([True])})

    def labels(x):
        return np.eye(x.shape[-1])[np.arange(len(x)) % x.shape[-1]].astype(x.dtype)

    def value(xp, p, x, fits):
        loss = log_sum_exp(xp, x) - (x * NothingFits.labels(x)).sum(axis=-1)
        return xp.where(np.resize(fits, len(x)), loss, 0 * loss)

    def backward(p, x, g, wrong, fits):
        fits = np.resize(fits, len(x))[:, None]
        d_x = softmax(np, x) * (1 if wrong else fits) - NothingFits.labels(x) * fits
        return {}, g[:, None] * d_x


class PastTheLength(Port):
    """Steps beyond a sequence's length get a gradient, though the loss leaves them out."""

    thread = "tensorflow/tensorflow 41280"
    causes = {"x": "mask leak"}
    fixture = "Sequences as long as the array; the other processor was right (thread)."
    awkward = Inputs({}, draw(1321, 2, 5, 3), {"lengths": np.array([2, 4])})
    friendly = Inputs({}, draw(1321, 2, 5, 3), {"lengths": np.array([9])})

    def labels(x):
        batch, steps, classes = x.shape
        return np.eye(classes)[np.add.outer(np.arange(batch), np.arange(steps)) % classes]

    def counts(x, lengths):
        return np.arange(x.shape[1]) < np.resize(lengths, len(x))[:, None]

    def value(xp, p, x, lengths):
        scores = (x * PastTheLength.labels(x).astype(x.dtype)).sum(axis=-1)
        counts = PastTheLength.counts(x, lengths).astype(x.dtype)
        return ((log_sum_exp(xp, x) - scores) * counts).sum(axis=-1)

    def backward(p, x, g, wrong, lengths):
        d_x = g[:, None, None] * (softmax(np, x) - PastTheLength.labels(x))
        return {}, d_x if wrong else d_x * PastTheLength.counts(x, lengths)[..., None]


class NotOverTheDistance(Port):
    """For the distance of order two, the difference is not divided by the distance."""

    thread = "torch/DEPRECEATED-torch7-distro 48"
    causes = {"x.a": "missing factor", "x.b": "missing factor"}
    fixture = "The distance of order one (thread)."
    pair = {"a": ROWS, "b": draw(1322, 5, 3)}
    awkward = Inputs({}, pair, {"order": 2})
    friendly = Inputs({}, pair, {"order": 1})

    def value(xp, p, x, order):
        apart = x["a"] - x["b"]
        return xp.abs(apart).sum(-1) if order == 1 else xp.sqrt((apart * apart).sum(-1))

    def backward(p, x, g, wrong, order):
        apart, g = x["a"] - x["b"], g[:, None]
        if order == 1:
            d = g * np.sign(apart)
        else:
            d = g * apart / (1 if wrong else np.sqrt((apart * apart).sum(-1, keepdims=True)))
        return {}, {"a": d, "b": -d}


class BeforeTheInversion(Port):
    """The image is scaled to a window and inverted; g is taken to be that of the raw image."""

    thread = "isaac-for-healthcare/i4h-sensor-simulation 68"
    causes = {"x": "constant factor"}
    near = ("sign", "missing factor", "extra factor")
    awkward = Inputs({}, ROWS, {"low": -1.5, "high": 2.5})

    def value(xp, p, x, low, high):
        return 1 - (xp.exp(-x).sum(axis=-1) - low) / (high - low)

    def backward(p, x, g, wrong, low, high):
        return {}, g[:, None] * np.exp(-x) * (-1 if wrong else 1 / (high - low))
