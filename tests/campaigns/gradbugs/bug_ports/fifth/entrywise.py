"""Entrywise functions and quantization."""

import math

import numpy as np

from ..port import Inputs, Port, draw

ROWS = draw(1300, 5, 3)


class BaseForExponent(Port):
    """The gradient of bˣ is that of xᵇ: b·xᵇ⁻¹."""

    thread = "tenstorrent/tt-metal 55289"
    causes = {"x": "misread"}
    near = ("wrong term", "wrong point", "missing factor", "extra factor")
    fixture = "An x of one in the thread, by chance; none where the test has others."
    awkward = Inputs({}, 0.5 + np.abs(ROWS), {"base": 2.5})

    def value(xp, p, x, base):
        return xp.exp(x * math.log(base))

    def backward(p, x, g, wrong, base):
        return {}, g * (base * x ** (base - 1) if wrong else base**x * math.log(base))


class PowerByLogarithms(Port):
    """The power is formed by logarithms, and infinity covers what they give below zero."""

    thread = "tenstorrent/tt-metal 54440"
    causes = {"x": "not finite"}
    fixture = "Positive numbers hide it; the thread names no test."
    awkward = Inputs({}, ROWS, {"exponent": 3})
    friendly = Inputs({}, 0.5 + np.abs(ROWS), {"exponent": 3})

    def value(xp, p, x, exponent):
        return x**exponent

    def backward(p, x, g, wrong, exponent):
        if wrong:
            with np.errstate(invalid="ignore", divide="ignore"):
                power = np.exp((exponent - 1) * np.log(x))
            return {}, g * np.where(x <= 0, np.inf, exponent * power)
        return {}, g * exponent * x ** (exponent - 1)


class TailWithoutItsDivisor(Port):
    """Beyond three, the slope of tanh, 4e/(1 + e)² with e = exp(−2|x|), is taken to be 4e."""

    thread = "tenstorrent/tt-metal 55349"
    causes = {"x": "missing factor"}
    near = ("precision", "wrong term", "constant factor", "extra factor")
    fixture = "Numbers within three of zero, where another formula holds (thread)."
    awkward = Inputs({}, np.copysign(3.02 + 0.05 * ROWS**2, ROWS))
    friendly = Inputs({}, ROWS)

    def value(xp, p, x):
        return xp.tanh(x)

    def backward(p, x, g, wrong):
        e = np.exp(-2 * np.abs(x))
        whole = (1 + e) ** 2
        return {}, g * 4 * e / (np.where(np.abs(x) > 3, 1, whole) if wrong else whole)


class BranchByTheOutput(Port):
    """The softplus is linear where βx passes a threshold; its backward asks that of βy."""

    thread = "pytorch/pytorch 55587"
    causes = {"x": "wrong point"}
    near = ("missing factor", "mask leak", "misread", "wrong term")
    fixture = "A high threshold hides it, such as that of 20 by default; no test is named."
    awkward = Inputs({}, ROWS, {"beta": 1.5, "threshold": 0.6})
    friendly = Inputs({}, ROWS, {"beta": 1.5, "threshold": 20})

    def value(xp, p, x, beta, threshold):
        return xp.where(beta * x > threshold, x, xp.logaddexp(beta * x, 0 * x) / beta)

    def backward(p, x, g, wrong, beta, threshold):
        told = np.logaddexp(beta * x, 0) if wrong else beta * x
        return {}, g * np.where(told > threshold, 1, np.exp(-np.logaddexp(0, -beta * x)))


class PassedAsItCame(Port):
    """A quantizer with a step to learn sends g to x as it came, also where the range clips.

    The shift stands for the rounding, as a straight-through gradient sees it.
    """

    thread = "pytorch/pytorch 41968"
    causes = {"x": "mask leak"}
    near = ("extra term", "missing factor")
    fixture = "Numbers within the range hide it; the thread's tests came with the fix."
    awkward = Inputs({"step": 0.5 + draw(1301, 3) ** 2}, ROWS, {"shift": 0.3 * draw(1302, 15)})
    friendly = awkward._replace(x=0.1 * ROWS)

    def value(xp, p, x, shift):
        shift = np.resize(shift, x.shape).astype(x.dtype)
        return p["step"] * xp.clip(x / p["step"] + shift, -1, 1)

    def backward(p, x, g, wrong, shift):
        shift = np.resize(shift, x.shape)
        level = x / p["step"] + shift
        within = np.abs(level) < 1
        slope = np.where(within, shift, np.clip(level, -1, 1))
        return {"step": (g * slope).sum(axis=0)}, g if wrong else g * within
