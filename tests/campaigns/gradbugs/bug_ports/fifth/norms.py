"""Normalization, and what is added around it."""

import numpy as np

from ..norms import d_standardized, standardized
from ..port import Inputs, Port, draw

ROWS = draw(1310, 5, 3)


class EpsilonInTheCorrection(Port):
    """The forward divides by |x| + ε; the derivative of |x| is taken to be x/(|x| + ε), too."""

    thread = "chainer/chainer 4190"
    causes = {"x": "wrong term"}
    near = ("wrong point", "missing factor", "extra factor", "misread")
    fixture = "A negligible ε (thread)."
    awkward = Inputs({}, ROWS, {"eps": 0.5})
    friendly = Inputs({}, ROWS, {"eps": 0.0})

    def value(xp, p, x, eps):
        return x / (xp.sqrt((x * x).sum(axis=-1, keepdims=True)) + eps)

    def backward(p, x, g, wrong, eps):
        norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        along = x * (x * g).sum(axis=-1, keepdims=True) / (norm + eps) ** 2
        return {}, g / (norm + eps) - along / (norm + eps if wrong else norm)


class NormAsAConstant(Port):
    """Each column of the weight is divided by its norm, which then counts as a constant."""

    thread = "wy1iu/sphereface 2"
    causes = {"params.weight": "missing term"}
    awkward = Inputs({"weight": draw(1311, 3, 4)}, ROWS)

    def value(xp, p, x):
        return x @ (p["weight"] / xp.sqrt((p["weight"] ** 2).sum(axis=0)))

    def backward(p, x, g, wrong):
        norm = np.sqrt((p["weight"] ** 2).sum(axis=0))
        unit, d_unit = p["weight"] / norm, x.T @ g
        along = 0 if wrong else unit * (unit * d_unit).sum(axis=0)
        return {"weight": (d_unit - along) / norm}, g @ unit.T


class ResidualWithoutScale(Port):
    """Without a scale to learn, the branch returns before the residual's gradient is added."""

    thread = "NVIDIA/recsys-examples 446"
    causes = {"x": "missing term"}
    near = ("g ignored",)
    fixture = "A scale to learn (thread)."
    awkward = Inputs({}, ROWS)
    friendly = Inputs({"scale": 1 + draw(1312, 3) ** 2}, ROWS)

    def value(xp, p, x):
        return p.get("scale", 1) * standardized(xp, x, -1)[0], x

    def backward(p, x, g, wrong):
        x_hat, rstd = standardized(np, x, -1)
        d_x = d_standardized(x_hat, rstd, g[0] * p.get("scale", 1), -1)
        if not p:
            return {}, d_x if wrong else d_x + g[1]
        return {"scale": (g[0] * x_hat).sum(axis=0)}, d_x + g[1]


class SecondSkip(Port):
    """Of two residual blocks, the second sends back what its branch gives, and not g itself."""

    thread = "paiml/entrenar 313"
    causes = {"params.first": "missing term", "x": "missing term"}
    near = ("wrong term",)
    awkward = Inputs({"first": draw(1313, 3, 3), "second": draw(1314, 3, 3)}, ROWS)

    def value(xp, p, x):
        between = x + xp.tanh(x @ p["first"])
        return between + xp.tanh(between @ p["second"])

    def backward(p, x, g, wrong):
        first = np.tanh(x @ p["first"])
        second = np.tanh((x + first) @ p["second"])
        d_second = g * (1 - second**2)
        branch = d_second @ p["second"].T
        d_first = (branch if wrong else branch + g) * (1 - first**2)
        d_x = d_first @ p["first"].T + (g if wrong else branch + g)
        return {"first": x.T @ d_first, "second": (x + first).T @ d_second}, d_x


class MagnitudeTwice(Port):
    """The magnitude's gradient is formed from the output, which it has multiplied already."""

    thread = "axolotl-ai-cloud/axolotl 3528"
    causes = {"params.magnitude": "extra factor"}
    near = ("wrong point", "misread")
    fixture = "Magnitudes of one hide it; the thread names no test."
    awkward = Inputs({"magnitude": 0.5 + draw(1315, 5) ** 2, "weight": draw(1316, 3, 5)}, ROWS)
    friendly = Inputs({"magnitude": np.ones(5), "weight": draw(1316, 3, 5)}, ROWS)

    def value(xp, p, x):
        return p["magnitude"] * (x @ p["weight"])

    def backward(p, x, g, wrong):
        y = x @ p["weight"] * (p["magnitude"] if wrong else 1)
        d = g * p["magnitude"]
        return {"magnitude": (g * y).sum(axis=0), "weight": x.T @ d}, d @ p["weight"].T


class SeveredAdapter(Port):
    """The adapter's scaled output is built anew from its numbers, and nothing goes back there."""

    thread = "paiml/aprender 2232"
    causes = {"params.down": "never written", "params.up": "never written", "x": "missing term"}
    near = ("g ignored",)
    weights = {"base": draw(1317, 3, 5), "down": draw(1318, 3, 2), "up": draw(1319, 2, 5)}
    awkward = Inputs(weights, ROWS, {"scale": 1.5})

    def value(xp, p, x, scale):
        return x @ p["base"] + scale * (x @ p["down"] @ p["up"])

    def backward(p, x, g, wrong, scale):
        d_scaled = 0 * g if wrong else scale * g
        d_low = d_scaled @ p["up"].T
        d_p = {"base": x.T @ g, "down": x.T @ d_low, "up": (x @ p["down"]).T @ d_scaled}
        return d_p, g @ p["base"].T + d_low @ p["down"].T
