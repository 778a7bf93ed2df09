"""Entrywise functions, broadcasting and arithmetic."""

import numpy as np

from .port import Inputs, Port, draw

ROWS = draw(600, 5, 3)


class Sigmoid(Port):
    """The slope is y²·exp(−x), which is 0·∞ far on the left."""

    thread = "tinygrad/tinygrad 1113"
    causes = {"x": "not finite"}
    fixture = "Inputs in the usual range of the tests (thread)."
    awkward = Inputs({}, np.array([-800.0, -2.0, 0.5, 3.0]))
    friendly = Inputs({}, ROWS)

    def value(xp, p, x):
        small = xp.exp(-abs(x))
        return xp.where(x < 0, small, 1) / (1 + small)

    def backward(p, x, g, wrong):
        small = np.exp(-abs(x))
        slope = Sigmoid.value(np, p, x) ** 2 * np.exp(-x) if wrong else small / (1 + small) ** 2
        return {}, g * slope


class SafeElu(Port):
    """Both branches are computed, and zero times the infinite one is added."""

    thread = "apache/mxnet 14673"
    causes = {"x": "not finite"}
    fixture = "Inputs whose exponential does not overflow (thread)."
    awkward = Inputs({}, np.array([-2.0, -0.5, 3.0, 800.0]))
    friendly = Inputs({}, ROWS)

    def value(xp, p, x):
        return xp.where(x > 0, x, xp.expm1(xp.minimum(x, 0)))

    def backward(p, x, g, wrong):
        right = np.exp(x if wrong else np.minimum(x, 0))
        return {}, g * ((x > 0) * 1.0 + (x <= 0) * right)


class Selu(Port):
    """The slope on the left is λ·(y + α), right for y + λ·α only if λ is one."""

    thread = "mlpack/mlpack 1540"
    causes = {"x": "extra factor"}
    near = ("wrong term", "constant factor")
    fixture = "ELU, whose λ is one (thread)."
    awkward = Inputs({}, ROWS, {"lam": 1.05, "alpha": 1.67})
    friendly = Inputs({}, ROWS, {"lam": 1.0, "alpha": 1.67})

    def value(xp, p, x, lam, alpha):
        return lam * xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))

    def backward(p, x, g, wrong, lam, alpha):
        y = Selu.value(np, p, x, lam, alpha)
        return {}, g * np.where(x > 0, lam, lam * (y + alpha) if wrong else y + lam * alpha)


class HiddenSigmoid(Port):
    """The hidden layer's gradient lacks the slope of its sigmoid."""

    thread = "iamtrask/Grokking-Deep-Learning 50"
    causes = {"params.first": "missing factor", "x": "missing factor"}
    awkward = Inputs({"first": draw(601, 3, 4), "second": draw(602, 4)}, ROWS)

    def value(xp, p, x):
        return (1 / (1 + xp.exp(-(x @ p["first"])))) @ p["second"]

    def backward(p, x, g, wrong):
        hidden = 1 / (1 + np.exp(-(x @ p["first"])))
        d_hidden = g[:, None] * p["second"]
        if not wrong:
            d_hidden = d_hidden * hidden * (1 - hidden)
        return {"first": x.T @ d_hidden, "second": hidden.T @ g}, d_hidden @ p["first"].T


class OutputSigmoid(Port):
    """The output layer's gradient lacks the slope of its sigmoid."""

    thread = "Bot-Academy/NeuralNetworkFromScratch 3"
    causes = dict.fromkeys(("params.bias", "params.weight", "x"), "missing factor")
    awkward = Inputs({"weight": draw(603, 3, 4), "bias": draw(604, 4)}, ROWS)

    def value(xp, p, x):
        return 1 / (1 + xp.exp(-(x @ p["weight"] + p["bias"])))

    def backward(p, x, g, wrong):
        y = OutputSigmoid.value(np, p, x)
        d = g if wrong else g * y * (1 - y)
        return {"weight": x.T @ d, "bias": d.sum(axis=0)}, d @ p["weight"].T


class BroadcastSum(Port):
    """The cotangent of a broadcast term is broadcast too, where it is to be summed."""

    thread = "apache/tvm 2465"
    causes = {"x.b": "missing sum"}
    near = ("structure",)
    fixture = "Terms of one shape hide it; the thread names no test."
    awkward = Inputs({}, {"a": ROWS, "b": draw(605, 3)})
    friendly = Inputs({}, {"a": ROWS, "b": draw(605, 5, 3)})

    def value(xp, p, x):
        return x["a"] + x["b"]

    def backward(p, x, g, wrong):
        whole = wrong or x["b"].ndim == 2
        return {}, {"a": g, "b": g if whole else g.sum(axis=0)}


class Difference(Port):
    """The subtrahend's gradient has the sign of the minuend's."""

    thread = "KhawajaAbaid/micrograd_c 1"
    causes = {"x.b": "sign"}
    awkward = Inputs({}, {"a": ROWS, "b": draw(606, 5, 3)})

    def value(xp, p, x):
        return x["a"] - x["b"]

    def backward(p, x, g, wrong):
        return {}, {"a": g, "b": g if wrong else -g}


class ExampleOfTheManual(Port):
    """In the manual's example the derivative by y of sin(x)·y is −sin(x)."""

    thread = "jax-ml/jax 3213"
    causes = {"x.y": "sign"}
    fixture = "Documentation that is not run (the thread does not say so)."
    awkward = Inputs({}, {"x": draw(607, 5), "y": draw(608, 5)})

    def value(xp, p, x):
        return xp.sin(x["x"]) * x["y"]

    def backward(p, x, g, wrong):
        d_y = np.sin(x["x"]) * g
        return {}, {"x": np.cos(x["x"]) * x["y"] * g, "y": -d_y if wrong else d_y}


class TimesAConstant(Port):
    """The cotangent passes as it is, not multiplied by the constant."""

    thread = "zergtant/pytorch-handbook 69"
    causes = {"x": "constant factor"}
    near = ("missing factor",)
    awkward = Inputs({}, ROWS, {"constant": 5.0})

    def value(xp, p, x, constant):
        return constant * x

    def backward(p, x, g, wrong, constant):
        return {}, g if wrong else constant * g


class BiasOfTheBatch(Port):
    """The bias's gradient is the cotangent itself, not its sum over the batch."""

    thread = "mlpack/mlpack 3679"
    causes = {"params.bias": "missing sum"}
    near = ("structure",)
    fixture = "A batch of one (thread)."
    awkward = Inputs({"bias": draw(609, 3)}, ROWS)
    friendly = Inputs({"bias": draw(609, 1, 3)}, ROWS[:1])

    def value(xp, p, x):
        return x + p["bias"]

    def backward(p, x, g, wrong):
        return {"bias": g if wrong or p["bias"].ndim == 2 else g.sum(axis=0)}, g


class TiedMaximum(Port):
    """Each of several equal maxima gets the whole cotangent."""

    thread = "Oneflow-Inc/oneflow 5651"
    causes = {"x": "missing factor"}
    near = ("constant factor", "wrong term")
    fixture = "Inputs without ties hide it; another framework's result showed it (thread)."
    awkward = Inputs({}, np.array([[1.0, 3.0, 3.0], [2.0, 0.5, 1.0], [4.0, 4.0, 4.0]]))
    friendly = Inputs({}, ROWS)

    def value(xp, p, x):
        return x.max(axis=-1)

    def backward(p, x, g, wrong):
        largest = x == x.max(axis=-1, keepdims=True)
        count = 1 if wrong else largest.sum(axis=-1, keepdims=True)
        return {}, g[:, None] * largest / count


class SumOverTheLastAxis(Port):
    """The cotangent of a sum is broadcast along the wrong axis."""

    thread = "Oneflow-Inc/oneflow 8659"
    causes = {"x": "transposed"}
    near = ("misread", "structure", "exception")
    fixture = "Sums over the first axis hide it; other sizes raise an error (thread)."
    awkward = Inputs({}, draw(610, 3, 3), {"axis": 1})
    friendly = Inputs({}, draw(610, 3, 3), {"axis": 0})

    def value(xp, p, x, axis):
        return (x * x).sum(axis=axis)

    def backward(p, x, g, wrong, axis):
        spread = g if wrong else np.expand_dims(g, axis)
        return {}, 2 * x * np.broadcast_to(spread, x.shape)


class Huber(Port):
    """The missing axes of g are added behind the others, not where the sum was."""

    thread = "chainer/chainer 5487"
    causes = {"": "exception"}
    near = ("structure",)
    fixture = "Inputs with two axes (thread)."
    awkward = Inputs({}, draw(611, 2, 3, 4))
    friendly = Inputs({}, ROWS)

    def value(xp, p, x):
        small = xp.minimum(abs(x), 1)
        return (small * small / 2 + abs(x) - small).sum(axis=1)

    def backward(p, x, g, wrong):
        axes = g[(..., *[None] * (x.ndim - 1))] if wrong else g[:, None]
        return {}, np.broadcast_to(axes, x.shape) * np.clip(x, -1, 1)
