"""Losses."""

import numpy as np

from ..port import Inputs, Port, draw

PAIR = {"a": draw(1150, 5, 3), "b": draw(1151, 5, 3)}
LABELS = np.array([1, 0, 0, 1, 1])


class InputsForGradients(Port):
    """The gradients of a squared difference are its two inputs."""

    thread = "SciSharp/TensorFlow.NET 787"
    causes = {"x.a": "g ignored", "x.b": "g ignored"}
    near = ("misread",)
    awkward = Inputs({}, PAIR)

    def value(xp, p, x):
        return (x["a"] - x["b"]) ** 2

    def backward(p, x, g, wrong):
        d = 2 * g * (x["a"] - x["b"])
        return {}, {"a": x["a"], "b": x["b"]} if wrong else {"a": d, "b": -d}


class HuberWithoutG(Port):
    """The gradient is the one for a g of ones."""

    thread = "chainer/chainer 1178"
    causes = {"x.a": "g ignored", "x.b": "g ignored"}
    near = ("missing factor",)
    fixture = "A loss that is the last step; the test had a g of ones (thread)."
    awkward = Inputs({}, PAIR, {"delta": 0.8})
    friendly = Inputs({}, PAIR, {"delta": 0.8}, np.ones(5))

    def value(xp, p, x, delta):
        apart = xp.abs(x["a"] - x["b"])
        return xp.where(apart <= delta, apart**2 / 2, delta * (apart - delta / 2)).sum(axis=-1)

    def backward(p, x, g, wrong, delta):
        d = np.clip(x["a"] - x["b"], -delta, delta) * (1 if wrong else g[:, None])
        return {}, {"a": d, "b": -d}


class CosineOfABatch(Port):
    """For a batch, the gradient of 1 − cos has the other sign."""

    thread = "torch/torch7 298"
    causes = {"x.a": "sign", "x.b": "sign"}
    fixture = "One pair of vectors (thread)."
    awkward = Inputs({}, PAIR)
    friendly = Inputs({}, {name: a[0] for name, a in PAIR.items()})

    def norm(xp, a):
        return xp.sqrt((a * a).sum(axis=-1) + 0.01)[..., None]

    def value(xp, p, x):
        a, b = (x[name] / CosineOfABatch.norm(xp, x[name]) for name in "ab")
        return 1 - (a * b).sum(axis=-1)

    def backward(p, x, g, wrong):
        norms, d_x = {name: CosineOfABatch.norm(np, a) for name, a in x.items()}, {}
        for name, other in ("ab", "ba"):
            norm, unit = norms[name], x[other] / norms[other]
            along = (x[name] * unit).sum(axis=-1, keepdims=True)
            d_x[name] = -g[..., None] * (unit / norm - along * x[name] / norm**3)
        return {}, {name: -d if wrong and g.ndim else d for name, d in d_x.items()}


class AspectRatio(Port):
    """The term for the ratio of width to height counts as a constant."""

    thread = "ooples/AiDotNet.Tensors 829"
    causes = {"x": "missing term"}
    awkward = Inputs({}, 0.5 + np.abs(draw(1152, 5, 2)), {"target": 0.5 + np.abs(draw(1153, 5, 2))})

    def value(xp, p, x, target):
        (w, h), (w0, h0) = x.T, target[: len(x)].T.astype(x.dtype)
        shared = xp.minimum(w, w0) * xp.minimum(h, h0)
        ratio = xp.arctan(w / h) - xp.arctan(w0 / h0)
        return 1 - shared / (w * h + w0 * h0 - shared) + 0.4 * ratio**2

    def backward(p, x, g, wrong, target):
        (w, h), (w0, h0) = x.T, target[: len(x)].T
        across, down = np.minimum(w, w0), np.minimum(h, h0)
        shared, both = across * down, w * h + w0 * h0
        # of shared/(both − shared): by shared, both/(both − shared)²; by both, −shared/(…)²
        d_shared, d_both = (g * a / (both - shared) ** 2 for a in (-both, shared))
        d_w, d_h = (
            d_shared * down * (w < w0) + d_both * h,
            d_shared * across * (h < h0) + d_both * w,
        )
        if not wrong:
            d_ratio = 0.8 * g * (np.arctan(w / h) - np.arctan(w0 / h0)) / (w**2 + h**2)
            d_w, d_h = d_w + d_ratio * h, d_h - d_ratio * w
        return {}, np.stack([d_w, d_h], -1)


class MergedSigns(Port):
    """Both labels share one formula: (t − y)^(γ + 1), whose sign is wrong for one if γ is odd."""

    thread = "jhwjhw0123/Imbalance-XGBoost 1"
    causes = {"x": "wrong term"}
    fixture = "Even powers, as of the usual focal loss, hide it; the thread names no test."
    awkward = Inputs({}, draw(1154, 5), {"labels": LABELS, "power": 3})
    friendly = Inputs({}, draw(1154, 5), {"labels": LABELS, "power": 2})

    def value(xp, p, x, labels, power):
        score = x * (2 * labels[: len(x)] - 1).astype(x.dtype)  # of the true label
        return xp.exp(-power * xp.logaddexp(0 * x, score)) * xp.logaddexp(0 * x, -score)

    def backward(p, x, g, wrong, labels, power):
        side = 2 * labels[: len(x)] - 1
        surely = np.exp(-np.logaddexp(0, -side * x))
        missed = np.exp(-np.logaddexp(0, side * x))
        by_log = -power * side * surely * missed**power * np.logaddexp(0, -side * x)
        by_power = -side * missed ** (power + 1)
        if wrong:
            by_power = -((side * missed) ** (power + 1))
        return {}, g * (by_log + by_power)
