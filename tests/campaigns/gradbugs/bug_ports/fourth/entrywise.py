"""Entrywise functions, dropout and quantization."""

import numpy as np

from ..port import Inputs, Port, d_softmax, draw, log_sum_exp, softmax

ROWS = draw(1140, 5, 3)
KEPT = {"kept": np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 1, 1]])}


class MaskFromTheRatio(Port):
    """The mask is found as output over input, and g passes where the input is zero."""

    thread = "kaldi-asr/kaldi 3890"
    causes = {"x": "mask leak"}
    fixture = "Inputs without a zero (thread)."
    zeros = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]])
    awkward = Inputs({}, ROWS * zeros, KEPT)
    friendly = Inputs({}, ROWS, KEPT)

    def value(xp, p, x, kept):
        return x * kept[: len(x), : x.shape[1]].astype(x.dtype)

    def backward(p, x, g, wrong, kept):
        kept = kept[: len(x), : x.shape[1]]
        if wrong:
            return {}, g * np.divide(x * kept, x, out=np.ones_like(x), where=x != 0)
        return {}, g * kept


class SaturatedTail(Port):
    """The clip of a straight-through gradient cuts at its bounds, where all that is cut off lies.

    The value is the input plus a given shift: rounding and clip, as such a gradient sees them.
    """

    thread = "pytorch/ao 4806"
    causes = {"x": "extra mask"}
    fixture = "Numbers within the range hide it; training alone showed it (thread)."
    awkward = Inputs({}, 2 * ROWS, {"shift": np.clip(np.rint(2 * ROWS), -1, 1) - 2 * ROWS})
    friendly = Inputs({}, 0.1 * ROWS, {"shift": -0.1 * ROWS})

    def value(xp, p, x, shift):
        return x + shift[: len(x), : x.shape[1]].astype(x.dtype)

    def backward(p, x, g, wrong, shift):
        clipped = x + shift[: len(x), : x.shape[1]]
        return {}, g * (np.abs(clipped) < 0.999) if wrong else g


class ExpOverExp(Port):
    """The slope of a steep sigmoid is a quotient of exponentials: ∞/∞ far below zero."""

    thread = "jeshraghian/snntorch 433"
    causes = {"x": "not finite"}
    near = ("precision",)
    fixture = "Numbers near zero (thread); a step in the original, whose slope this is."
    awkward = Inputs({}, np.where(ROWS < -0.5, 60 * ROWS, 0.1 * ROWS))
    friendly = Inputs({}, 0.1 * ROWS)

    def value(xp, p, x):
        return xp.exp(-xp.logaddexp(0 * x, -25 * x))

    def backward(p, x, g, wrong):
        if wrong:
            with np.errstate(over="ignore", invalid="ignore"):
                power = np.exp(-25 * x)
                return {}, 25 * g * power / (power + 1) ** 2
        power = np.exp(-25 * np.abs(x))
        return {}, 25 * g * power / (power + 1) ** 2


class ThroughTheSoftmax(Port):
    """The log-softmax's gradient is that of the softmax for g over it: 0/0 where it vanishes."""

    thread = "FluxML/NNlib.jl 68"
    causes = {"x": "not finite"}
    fixture = "Scores of moderate size (thread)."
    awkward = Inputs({}, 900 * ROWS)
    friendly = Inputs({}, ROWS)

    def value(xp, p, x):
        return x - log_sum_exp(xp, x)[..., None]

    def backward(p, x, g, wrong):
        probs = softmax(np, x)
        if wrong:
            with np.errstate(divide="ignore", invalid="ignore"):
                return {}, d_softmax(probs, g / probs)
        return {}, g - probs * g.sum(axis=-1, keepdims=True)


class OneLessOutput(Port):
    """The slope of the sigmoid is y·(1 − y), which keeps no digits where y is nearly one."""

    thread = "tensorflow/tensorflow 126060"
    causes = {"x": "precision"}
    fixture = "Negative numbers (thread)."
    awkward = Inputs({}, 20 + ROWS)
    friendly = Inputs({}, -20 + ROWS)

    def value(xp, p, x):
        return xp.exp(-xp.logaddexp(0 * x, -x))

    def backward(p, x, g, wrong):
        if wrong:
            y = np.exp(-np.logaddexp(0 * x, -x))
            return {}, g * y * (1 - y)
        power = np.exp(-np.abs(x))
        return {}, g * power / (1 + power) ** 2
